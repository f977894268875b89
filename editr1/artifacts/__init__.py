"""Immutable artifacts in file:// and s3:// stores."""
