"""Shared code of the six stage modules."""
