"""Which worker gets which run, and what happens when a worker is lost."""
