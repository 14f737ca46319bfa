"""The encoder: what no decoder needs."""
