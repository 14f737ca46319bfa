"""What the orchestrator remembers: the database, and bytes under their SHA-256."""
