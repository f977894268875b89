"""Runs: run files, stage kinds, references to inputs, records, orchestration decisions and reports."""
