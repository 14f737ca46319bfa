"""Measures of quality and rate that metrics.py and the services share."""
