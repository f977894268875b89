"""Code that the stage modules share: start of processes, inputs and outputs, and reporting from a pod."""
