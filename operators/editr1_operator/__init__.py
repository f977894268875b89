"""Kubernetes operator that runs the stages of every EditRun. After a restart, it continues all runs."""
