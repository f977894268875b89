"""The base of every complaint about input data."""

from __future__ import annotations


class DataError(ValueError):
    """Input data break a rule. The message names file, row and field, the value and what is allowed."""
