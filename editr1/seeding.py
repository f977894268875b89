"""Derive the seeds and random number generators of all stages.

The result of each function depends only on its arguments, not on the machine, the process, the number of ranks or the order
of calls. A resumed training run therefore draws the same random numbers as an uninterrupted one.

The functions combine their arguments in different ways. None of them may be changed, because the shipped checkpoints and
existing runs must stay reproducible. New code should use :func:`derive_rng` or :func:`derive_seed`.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Part = str | bytes | int


def derive_rng(*parts: Part) -> np.random.Generator:
    """Return a NumPy generator seeded with the first 16 bytes of the digest ``hash_parts(*parts)``."""
    return np.random.default_rng(int.from_bytes(hash_parts(*parts)[:16], "little"))


def derive_seed(seed: int, *parts: Part) -> int:
    """Derive a seed in [0, 2**63) from a stage's ``seed`` and from ``parts``, which identify the purpose of the derived seed.

    Seeds derived from different ``parts`` or different values of ``seed`` are independent.
    """
    state = hashlib.sha256(str(seed).encode())
    _update(state, parts)
    return int.from_bytes(state.digest()[:8], "big") >> 1


def hash_parts(*parts: Part) -> bytes:
    """Return the SHA-256 digest of ``parts``, each prefixed with its length, so that ("ab", "c") differs from ("a", "bc")."""
    state = hashlib.sha256()
    _update(state, parts)
    return state.digest()


def hash_fraction(text: str) -> float:
    """Return the hash of ``text`` as a number in [0, 1), uniformly distributed. It is used to split data by digests."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def offset_seed(seed: int, offset: int) -> int:
    """Return ``seed + offset``, minus 2**63 if the sum is not below 2**63."""
    total = seed + offset
    return total if total < 2**63 else total - 2**63


def stream_rng(seed: int, *stream: int) -> np.random.Generator:
    """Return a NumPy generator seeded with the list ``[seed, *stream]``."""
    return np.random.default_rng([seed, *stream])


def torch_generator(seed: int) -> torch.Generator:
    """Return a torch generator on the CPU, seeded with ``seed``."""
    import torch

    return torch.Generator().manual_seed(seed)


def curation_rng(*key: str | int) -> np.random.Generator:
    """Return the random number generator for one random choice in curation.

    ``key`` identifies the choice and contains the seed.
    """
    return np.random.default_rng(list(_joined_hash(key)))


def curation_seed(*key: str | int) -> int:
    """Return the seed in [0, 2**31) for one request that curation sends to an endpoint.

    ``key`` identifies the request.
    """
    return int.from_bytes(_joined_hash(key)[:4], "big") >> 1


def sample_seed(seed: int, iteration: int, group: int, sample: int) -> int:
    """Return the seed in [0, 2**63) for all noise in one RL rollout, which generates one edited image."""
    digest = hashlib.blake2b(f"noise/{seed}/{iteration}/{group}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def window_rng(seed: int, iteration: int, group: int | None) -> random.Random:
    """Return the random number generator that selects the SDE window (the range of stochastic denoising steps).

    If ``group`` is None, all groups of an iteration use the same window.
    """
    return random.Random(f"window/{seed}/{iteration}/{group}")


def case_order_rng(seed: int, epoch: int) -> random.Random:
    """Return the random number generator that shuffles the cases for one epoch of the editor's RL."""
    return random.Random(f"order/{seed}/{epoch}")


def pair_order_seed(seed: int, epoch: int) -> int:
    """Return the seed for shuffling the preference pairs for one epoch of GCPO."""
    return seed * 1_000_003 + epoch


def _update(state: hashlib._Hash, parts: tuple[Part, ...]) -> None:
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)


def _joined_hash(key: tuple[str | int, ...]) -> bytes:
    return hashlib.sha256("\x1f".join(str(part) for part in key).encode()).digest()
