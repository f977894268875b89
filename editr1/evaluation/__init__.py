"""Evaluation of verifiers and editors: metrics with confidence intervals, public benchmarks and the report page."""
