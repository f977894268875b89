"""Metrics with confidence intervals, benchmark loaders and the report page."""
