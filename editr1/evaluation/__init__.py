"""Metrics with intervals, benchmark loaders and the report."""
