"""The networks, exact in integers."""
