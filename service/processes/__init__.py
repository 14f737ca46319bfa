"""The processes that a worker starts: codecs are run and measured in them, under limits."""
