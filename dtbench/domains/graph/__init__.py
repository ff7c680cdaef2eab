"""Shortest paths on a graph (Chen et al. 2021, section 2 and appendix)."""
