"""One entry module per stage; shared code is in ``runtime``."""
