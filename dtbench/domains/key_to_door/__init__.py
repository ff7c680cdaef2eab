"""Key-to-Door (Chen et al. 2021, section 5.4)."""
