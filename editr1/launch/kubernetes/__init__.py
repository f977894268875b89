"""The Kubernetes backend: run each stage as a Helm release, and read its state from the objects of the release."""
