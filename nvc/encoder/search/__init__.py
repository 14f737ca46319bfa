"""Search for motion."""
