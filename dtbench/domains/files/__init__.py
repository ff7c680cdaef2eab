"""Anybody's data in D4RL's layout, in any environment that gymnasium knows, as a task."""
