"""Launch stages as processes on this machine."""
