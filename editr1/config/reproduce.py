"""How much of everything a reproduction of the paper's claims runs; about an hour a seed on two cores, by the parts measured."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from editr1.config.base import Settings


class SftSteps(Settings):
    """Optimiser steps of SFT by what the rows hold: until accuracy on held-out pairs stops rising."""

    verified: PositiveInt = 600
    """Best of several traces by agreement with gold (T+V); 600 more gain nothing."""
    unverified: PositiveInt = 2400
    """A trace at random (T); less at 1,200 and at 4,800."""
    verdicts: PositiveInt = 2400
    """Gold verdicts without reasoning (V); less at 600 and at 4,800."""
    holistic: PositiveInt = 600
    """Two marks for the whole picture."""


class Budget(Settings):
    """Sizes shared by every cell of one reproduction, so that cells differ in what a claim is about and in nothing else."""

    cases: PositiveInt = 1500
    """Edit cases for SFT rows."""
    candidates: PositiveInt = 4
    """Edited pictures a case."""
    pairs: PositiveInt = 960
    """Preference pairs for GCPO."""
    test_pairs: PositiveInt = 1000
    """Held-out preference pairs on which every verifier is judged."""
    trace_pairs: PositiveInt = 400
    """The first so many of them, on which several traces are averaged."""
    rl_cases: PositiveInt = 700
    """Edit cases for editor RL."""
    test_cases: PositiveInt = 1000
    """Held-out edit cases on which every editor is judged."""
    sft_steps: SftSteps = SftSteps()
    """Optimiser steps of SFT."""
    sft_warmup_steps: Annotated[int, Field(ge=0)] = 50
    """Steps over which SFT's learning rate rises."""
    batch_size: PositiveInt = 32
    """Rows a step of SFT."""
    best_of_n_steps: PositiveInt = 340
    """Optimiser steps of SFT on traces that pairs picked. SFT for longer takes ``sft_steps.verified`` again."""
    more_learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Peak learning rate of both, which stand against GCPO: a second round on a trained model."""
    rollouts: PositiveInt = 90
    """Rollouts of GCPO."""
    pairs_per_rollout: PositiveInt = 12
    """Pairs a rollout."""
    num_traces: Annotated[int, Field(ge=2)] = 8
    """Traces a side and pair, in GCPO and where pairs pick traces."""
    gcpo_learning_rate: Annotated[float, Field(gt=0)] = 7e-5
    """Learning rate of GCPO."""
    few_pairs: tuple[PositiveInt, ...] = (60, 240)
    """Points of the curve over the number of pairs, besides ``pairs``; 60 is 1 % of the SFT rows. May be none."""
    averaged: tuple[PositiveInt, ...] = (1, 4, 16)
    """Sampled traces averaged at inference, from 1."""
    iterations: PositiveInt = 120
    """Iterations of editor RL on each verifier."""
    editor_curve: tuple[PositiveInt, ...] = (60,)
    """Shorter trainings of the same, which show how an editor fares in the course of it: the first so many iterations. May be none."""
    control_iterations: PositiveInt = 60
    """Iterations of editor RL with a KL term, and on shuffled rewards."""
    cases_per_iteration: PositiveInt = 8
    """Edit cases an iteration."""
    group_size: Annotated[int, Field(ge=2)] = 16
    """Samples a case."""
    max_new_tokens: PositiveInt = 96
    """Longest trace."""
    bootstrap_samples: PositiveInt = 2000
    """Resamples behind each interval."""
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Largest share of scores that may fail in an evaluation."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        faults = []
        if len(self.averaged) < 2 or self.averaged[0] != 1 or list(self.averaged) != sorted(set(self.averaged)):
            faults.append(f"averaged {self.averaged}: 1 and at least one larger number of traces, rising")
        if any(n >= self.pairs for n in self.few_pairs):
            faults.append(f"few_pairs {self.few_pairs}: each must be below pairs ({self.pairs})")
        if any(n >= self.iterations for n in self.editor_curve):
            faults.append(f"editor_curve {self.editor_curve}: each must be below iterations ({self.iterations})")
        if min((*self.few_pairs, self.pairs)) < self.pairs_per_rollout:
            faults.append(f"pairs_per_rollout {self.pairs_per_rollout}: more than the fewest pairs of a training")
        if faults:
            raise ValueError("; ".join(faults))
        return self


SMALLEST = Budget(
    cases=8,
    candidates=2,
    pairs=8,
    test_pairs=8,
    trace_pairs=8,
    rl_cases=8,
    test_cases=8,
    sft_steps=SftSteps(verified=8, unverified=8, verdicts=8, holistic=8),
    sft_warmup_steps=0,
    batch_size=8,
    best_of_n_steps=1,
    rollouts=1,
    pairs_per_rollout=2,
    num_traces=4,
    few_pairs=(),
    averaged=(1, 2),
    iterations=2,
    editor_curve=(),
    control_iterations=1,
    cases_per_iteration=2,
    group_size=4,
    max_new_tokens=96,
    bootstrap_samples=100,
    max_failed_fraction=1.0,
)
"""Every cell at a size that only shows that it runs."""
