"""Turn jobs into processes, on this machine or on a Kubernetes cluster."""
