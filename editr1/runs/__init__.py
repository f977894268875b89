"""What a run is: run file, stage kinds, references, record, orchestration decisions, report."""
