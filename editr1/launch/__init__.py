"""Launch stage jobs as local processes or as releases on a Kubernetes cluster."""
