"""Clips that experiments name: stored, fetched, looked into."""
