"""Speed beside other implementations; run from the repository's root, e.g. `python -m benchmarks.guard`."""
