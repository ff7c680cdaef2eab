"""The rivals of Decision Transformer, plug-ins that use only the public names of dtbench."""
