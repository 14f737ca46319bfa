"""An experiment's fields, and the states of its runs."""
