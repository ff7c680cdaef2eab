"""Any gymnasium environment with a data file of one's own."""
