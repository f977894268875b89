"""Runs and their stages: run files, kinds of stages, references to inputs, run records, decisions about next steps, and reports."""
