"""Sizes of a reproduction of the paper's claims. The defaults take about an hour per seed on two cores."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from editr1.config.base import Settings


class SftSteps(Settings):
    """Optimizer steps of SFT per kind of rows, chosen such that more steps do not improve the accuracy on held-out pairs."""

    verified: PositiveInt = 600
    """Rows with the best of several traces by agreement with the gold verdicts (T+V). Another 600 steps do not improve the accuracy."""
    unverified: PositiveInt = 2400
    """Rows with a random trace (T). Accuracy is lower at 1,200 and at 4,800 steps."""
    verdicts: PositiveInt = 2400
    """Rows with gold verdicts and no reasoning (V). Accuracy is lower at 600 and at 4,800 steps."""
    holistic: PositiveInt = 600
    """Rows with two ratings of the whole image."""


class Budget(Settings):
    """Sizes shared by all experiments of a reproduction, so that experiments differ only in the factor under test."""

    cases: PositiveInt = 1500
    """Edit cases for SFT rows."""
    candidates: PositiveInt = 4
    """Edited images per case."""
    pairs: PositiveInt = 960
    """Preference pairs for GCPO."""
    test_pairs: PositiveInt = 1000
    """Held-out preference pairs on which every verifier is evaluated."""
    trace_pairs: PositiveInt = 400
    """Number of held-out pairs, from the start of the table, on which several traces are averaged."""
    rl_cases: PositiveInt = 700
    """Edit cases for RL of the editor."""
    test_cases: PositiveInt = 1000
    """Held-out edit cases on which every editor is evaluated."""
    sft_steps: SftSteps = SftSteps()
    """Optimizer steps of SFT."""
    sft_warmup_steps: Annotated[int, Field(ge=0)] = 50
    """Warmup steps of SFT."""
    batch_size: PositiveInt = 32
    """Rows per optimizer step of SFT."""
    best_of_n_steps: PositiveInt = 340
    """Optimizer steps of SFT on the best of several traces sampled for each pair. Longer SFT uses
    ``sft_steps.verified``."""
    second_sft_learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Peak learning rate of the two SFT baselines of GCPO (best of n, longer SFT), which continue from a trained model."""
    rollouts: PositiveInt = 90
    """Rollouts of GCPO."""
    pairs_per_rollout: PositiveInt = 12
    """Pairs per rollout."""
    num_traces: Annotated[int, Field(ge=2)] = 8
    """Traces per side of a pair, in GCPO and in best-of-n SFT."""
    gcpo_learning_rate: Annotated[float, Field(gt=0)] = 7e-5
    """Peak learning rate of GCPO."""
    few_pairs: tuple[PositiveInt, ...] = (60, 240)
    """Smaller numbers of training pairs at which GCPO is also evaluated, below ``pairs``; 60 pairs are 1 % of the SFT
    rows. May be empty."""
    averaged: tuple[PositiveInt, ...] = (1, 4, 16)
    """Numbers of sampled traces averaged at inference, starting with 1."""
    iterations: PositiveInt = 120
    """Iterations of RL of the editor, per verifier."""
    editor_curve: tuple[PositiveInt, ...] = (60,)
    """Smaller numbers of iterations at which the editor is also evaluated, in separate trainings. May be empty."""
    control_iterations: PositiveInt = 60
    """Iterations of RL of the editor with a KL term, and with shuffled rewards."""
    cases_per_iteration: PositiveInt = 8
    """Edit cases per iteration."""
    group_size: Annotated[int, Field(ge=2)] = 16
    """Samples per case."""
    max_new_tokens: PositiveInt = 96
    """Maximum number of tokens per trace."""
    bootstrap_samples: PositiveInt = 2000
    """Bootstrap resamples per confidence interval."""
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Maximum accepted fraction of failed scores per evaluation."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        faults = []
        if len(self.averaged) < 2 or self.averaged[0] != 1 or list(self.averaged) != sorted(set(self.averaged)):
            faults.append(
                f"averaged {list(self.averaged)}: must start with 1 and contain at least one larger number, in ascending order"
            )
        if any(n >= self.pairs for n in self.few_pairs):
            faults.append(f"few_pairs {list(self.few_pairs)}: each must be below pairs ({self.pairs})")
        if any(n >= self.iterations for n in self.editor_curve):
            faults.append(f"editor_curve {list(self.editor_curve)}: each must be below iterations ({self.iterations})")
        if min((*self.few_pairs, self.pairs)) < self.pairs_per_rollout:
            faults.append(
                f"pairs_per_rollout {self.pairs_per_rollout}: must not exceed pairs or the smallest of few_pairs"
            )
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
"""Smallest sizes, for tests: every experiment runs, but the results are meaningless."""
