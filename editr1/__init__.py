"""Edit-R1: a verifier of image edits, served as a reward, and editors trained on it."""

__version__ = "0.1.0"
