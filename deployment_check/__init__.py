"""What check.py and the storm tests do to a deployment, and how they judge what clients saw."""
