"""The service: what the orchestrator and the workers are made of."""
