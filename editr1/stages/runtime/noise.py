"""Seeds of random draws that are made in many calls."""

from __future__ import annotations

import hashlib


def noise_seed(seed: int, *what: str | bytes | int) -> int:
    """A seed in [0, 2**63) for one draw of a stage with ``seed``: SHA-256 of all parts, each with its length.

    Draws of other things, and of runs whose seeds follow one another, share no noise, in whatever calls they are made.
    """
    state = hashlib.sha256(str(seed).encode())
    for part in what:
        data = part if isinstance(part, bytes) else str(part).encode()
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return int.from_bytes(state.digest()[:8], "big") >> 1
