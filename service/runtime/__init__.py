"""What a service process needs besides HTTP: settings, logs, metrics, systemd, its version."""
