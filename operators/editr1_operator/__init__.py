"""Kubernetes operator that runs the stages of every EditRun. After a restart it resumes every run."""
