"""Any Minari dataset on this machine as a task."""
