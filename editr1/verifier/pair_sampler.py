"""Order in which GCPO trains on preference pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from editr1.seeding import pair_order_seed, torch_generator
from editr1.verifier.pair_layout import PairLayout


class PairSampler(Sampler[int]):
    """Sampler of row numbers of :class:`~editr1.verifier.rows.PairRows`, one per trace.

    A rollout consists of the traces of ``pairs_per_rollout`` pairs, in the order of ``layout``. Its row numbers are yielded
    ``repeats`` times, because TRL reads the generation batch again in each micro-step. At the start of each epoch, the
    pairs are shuffled with ``seed``. If ``seed`` is None, they are not shuffled. The pairs that remain after the last full
    rollout of an epoch are skipped in that epoch. The order depends only on the constructor's arguments, so a resumed training
    skips exactly the rows that were already used.
    """

    def __init__(
        self,
        pairs: int,
        layout: PairLayout,
        *,
        pairs_per_rollout: int,
        repeats: int,
        rollouts: int,
        seed: int | None,
    ) -> None:
        if not 1 <= pairs_per_rollout <= pairs:
            raise ValueError(
                f"pairs_per_rollout is {pairs_per_rollout}, but there are {pairs} pairs; use 1 to {pairs} pairs per rollout"
            )
        self._pairs, self._layout, self._pairs_per_rollout = pairs, layout, pairs_per_rollout
        self._repeats, self._rollouts, self._seed = repeats, rollouts, seed

    def __len__(self) -> int:
        return self._rollouts * self._repeats * self._pairs_per_rollout * self._layout.traces_per_pair

    def __iter__(self) -> Iterator[int]:
        rollouts_per_epoch = self._pairs // self._pairs_per_rollout
        order: list[int] = []
        for rollout in range(self._rollouts):
            epoch, place = divmod(rollout, rollouts_per_epoch)
            if place == 0:
                order = self._order(epoch)
            chosen = order[place * self._pairs_per_rollout : (place + 1) * self._pairs_per_rollout]
            for _ in range(self._repeats):
                yield from self._layout.rows(chosen)

    def _order(self, epoch: int) -> list[int]:
        if self._seed is None:
            return list(range(self._pairs))
        generator = torch_generator(pair_order_seed(self._seed, epoch))
        return list(torch.randperm(self._pairs, generator=generator).tolist())
