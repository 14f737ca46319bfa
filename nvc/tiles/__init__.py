"""Tiles of 16×16: which of a picture the networks code, which are copied from the prediction, which are coded sample by
sample."""
