"""The Kubernetes backend: charts in, objects and their state out."""
