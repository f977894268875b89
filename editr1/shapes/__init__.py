"""The small world with known truth."""
