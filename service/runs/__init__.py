"""A run at its worker: from the dispatch through a codec process to the delivered result."""
