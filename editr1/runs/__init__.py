"""Runs and their stages: run files, stage kinds, references to inputs, run records, decisions on next steps, and reports."""
