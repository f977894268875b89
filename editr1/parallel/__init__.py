"""Process groups and collectives for stages that run on several processes."""
