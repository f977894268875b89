"""Code shared by the stage modules: starting processes, inputs and outputs, and reporting from a pod."""
