"""Launch stages as processes of this machine."""
