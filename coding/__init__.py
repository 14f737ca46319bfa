"""The interface of every codec, and the codecs by name."""
