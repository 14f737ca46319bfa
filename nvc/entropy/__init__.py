"""The range coder."""
