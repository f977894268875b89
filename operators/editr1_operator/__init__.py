"""Kubernetes operator that runs the stages of every EditRun. When it is restarted, it continues all runs."""
