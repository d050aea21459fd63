"""The same events, for people."""
