"""The parts of the orchestrator, and the schema and records that store.py keeps."""
