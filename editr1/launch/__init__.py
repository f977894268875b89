"""Turn a job into processes: on this machine or on a Kubernetes cluster."""
