"""Deep merge of nested settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def deep_merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` updated with ``override``; neither argument is modified.

    Where both hold a mapping under a key, the two are merged in turn. Any other value of ``override`` replaces that of
    ``base``, lists and None included.
    """
    merged = dict(base)
    for key, value in override.items():
        present = merged.get(key)
        if isinstance(present, Mapping) and isinstance(value, Mapping):
            value = deep_merge(present, value)
        merged[key] = value
    return merged
