"""The HTTP that both programs stand on. Programs import its one front door, service.py, and nothing in here."""
