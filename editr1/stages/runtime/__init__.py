"""Code that the six stage modules share."""
