"""The methods that Decision Transformer is compared with: plug-ins on the public names of dtbench."""
