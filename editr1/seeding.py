"""Random generators whose stream depends on nothing but what they are asked for."""

from __future__ import annotations

import hashlib

import numpy as np


def rng_of(*parts: str | bytes | int) -> np.random.Generator:
    """A generator seeded by the SHA-256 of ``parts``: the same on every machine, in every process and order."""
    return np.random.default_rng(int.from_bytes(digest(*parts)[:16], "little"))


def digest(*parts: str | bytes | int) -> bytes:
    """SHA-256 of ``parts``, each with its length, so that no two lists run together."""
    state = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.digest()
