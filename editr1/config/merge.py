"""Deep merge of nested settings, such as a settings file and its overrides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def deep_merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` updated with ``override``. Neither argument is modified.

    If both have a mapping under the same key, these two mappings are merged recursively. Any other value in
    ``override``, including a list or None, replaces the value in ``base``.
    """
    merged = dict(base)
    for key, value in override.items():
        present = merged.get(key)
        if isinstance(present, Mapping) and isinstance(value, Mapping):
            value = deep_merge(present, value)
        merged[key] = value
    return merged
