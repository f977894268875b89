"""Data types of Edit-R1, their validation, and their Parquet tables."""
