"""The orchestrator's endpoints, and its upkeep."""
