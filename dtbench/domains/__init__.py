"""Families of tasks, each with its environments and data."""
