"""The figures of a suite."""
