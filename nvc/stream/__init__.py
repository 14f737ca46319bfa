"""The stream: its syntax, how it is read and written."""
