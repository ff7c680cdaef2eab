"""Offline data: episodes, sampling, the store."""
