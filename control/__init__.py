"""The parts of the orchestrator, and of the store: its database, schema and records."""
