"""Split imported data into training and held-out data by source image."""

from __future__ import annotations

from collections.abc import Iterable

from editr1.seeding import hash_fraction


def held_out_sources(sources: Iterable[str], fraction: float) -> frozenset[str]:
    """Return the source images whose cases are held out for evaluation. ``sources`` are SHA-256 digests as hex digits.

    All cases with the same source image are in the same split, because an image seen in training would make held-out
    cases too easy. The split of an image depends only on a hash of its digest, so it does not change when other
    images are added. If ``fraction`` is above 0 and there are at least two images, each split gets at least one
    image.
    """
    order = sorted({*sources}, key=hash_fraction)
    count = sum(hash_fraction(source) < fraction for source in order)
    if fraction > 0 and len(order) > 1:
        count = min(max(count, 1), len(order) - 1)
    return frozenset(order[:count])
