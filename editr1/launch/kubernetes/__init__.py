"""The Kubernetes backend: install stages as Helm releases and observe their objects."""
