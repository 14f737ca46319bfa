"""The machine that the codec runs on: threads, memory, vector instructions."""
