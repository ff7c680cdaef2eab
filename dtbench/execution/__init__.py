"""How trials run: in this process or with Ray Tune."""
