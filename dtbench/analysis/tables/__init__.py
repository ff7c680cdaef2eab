"""Tables of scores, targets, protocols and searches."""
