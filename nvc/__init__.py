"""The learned codec: everything that nvc/decode.py imports is normative."""
