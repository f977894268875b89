"""Kubernetes operator of the EditRun resource: runs the stages of each run, and continues them after its own restart."""
