"""The parts of the worker: a run's way from its acceptance over a codec process to its delivery."""
