"""The entry modules of the six kinds of stages. Code that they share is in ``runtime``."""
