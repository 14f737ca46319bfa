"""The learned codec `nvc`: everything that nvc/decode.py can reach is normative."""
