"""The command line interface ``editr1``."""
