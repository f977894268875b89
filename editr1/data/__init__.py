"""The nouns of Edit-R1 and their Parquet form."""
