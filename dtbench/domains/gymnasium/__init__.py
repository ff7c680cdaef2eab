"""Any gymnasium environment with a data file of the user."""
