"""The entry modules of the six kinds of stages. Shared code is in the package ``runtime``."""
