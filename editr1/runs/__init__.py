"""What a run is, and what launches it."""
