"""Process groups and collectives for training on several processes."""
