"""Settings of ``editr1 reproduce``: numbers of cases, pairs and training steps of its experiments.

With the defaults, the experiments of one seed take about an hour on two cores.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from editr1.config.base import Settings


class SftSteps(Settings):
    """Number of optimizer steps of SFT, per kind of training rows.

    More steps than the defaults do not increase the accuracy on held-out pairs.
    """

    verified: PositiveInt = 600
    """Number of optimizer steps on rows of variant "T+V". Such a row contains the trace that agrees best with the gold
    verdicts. With 1,200 steps, the accuracy is not higher."""
    unverified: PositiveInt = 2400
    """Number of optimizer steps on rows of variant "T". Such a row contains a trace chosen at random. The accuracy is
    lower with 1,200 and with 4,800 steps."""
    verdicts: PositiveInt = 2400
    """Number of optimizer steps on rows of variant "V". Such a row contains the gold verdicts without reasoning. The
    accuracy is lower with 600 and with 4,800 steps."""
    holistic: PositiveInt = 600
    """Number of optimizer steps on rows of variant "holistic". Such a row contains two ratings of the whole image
    instead of verdicts on principles."""


class Budget(Settings):
    """Settings that all experiments of a reproduction share, so that they differ only in the factor under test."""

    cases: PositiveInt = 1500
    """Number of edit cases (a source image with an instruction) from which SFT rows are made."""
    candidates: PositiveInt = 4
    """Number of edited images per edit case."""
    pairs: PositiveInt = 960
    """Number of preference pairs for GCPO."""
    test_pairs: PositiveInt = 1000
    """Number of preference pairs on which every verifier is evaluated. They are not used for training."""
    trace_pairs: PositiveInt = 400
    """Number of held-out pairs for the experiments that average the scores of several traces. They are the first pairs
    of the table of held-out pairs."""
    rl_cases: PositiveInt = 700
    """Number of edit cases for RL of the editor."""
    test_cases: PositiveInt = 1000
    """Number of edit cases on which every editor is evaluated. They are not used for training."""
    sft_steps: SftSteps = SftSteps()
    """Number of optimizer steps of SFT, for each kind of training rows."""
    sft_warmup_steps: Annotated[int, Field(ge=0)] = 50
    """Number of optimizer steps of SFT during which the learning rate rises linearly to its peak."""
    batch_size: PositiveInt = 32
    """Number of rows per optimizer step of SFT."""
    best_of_n_steps: PositiveInt = 340
    """Number of optimizer steps of the SFT baseline "best of n", which trains on the best of n sampled traces. The
    other SFT baseline, "longer SFT", takes ``sft_steps.verified`` additional steps."""
    second_sft_learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Peak learning rate of the two SFT baselines of GCPO ("best of n" and "longer SFT"). Both baselines continue
    training from the model after SFT."""
    rollouts: PositiveInt = 90
    """Number of rollouts of GCPO."""
    pairs_per_rollout: PositiveInt = 12
    """Number of pairs per rollout of GCPO."""
    num_traces: Annotated[int, Field(ge=2)] = 8
    """Number of traces sampled for each of the two images of a pair, in GCPO and in the best-of-n baseline."""
    gcpo_learning_rate: Annotated[float, Field(gt=0)] = 7e-5
    """Peak learning rate of GCPO."""
    few_pairs: tuple[PositiveInt, ...] = (60, 240)
    """Additional numbers of training pairs with which GCPO is trained and evaluated. Each number must be below
    ``pairs``. 60 pairs are 1 % of the number of SFT rows. The list may be empty."""
    averaged: tuple[PositiveInt, ...] = (1, 4, 16)
    """Numbers of traces per edit whose scores are averaged at inference. The first number must be 1, and the numbers
    must be in ascending order."""
    iterations: PositiveInt = 120
    """Number of iterations of RL of the editor, for each verifier that serves as its reward."""
    editor_curve: tuple[PositiveInt, ...] = (60,)
    """Additional numbers of iterations after which the editor is evaluated. Each number must be below ``iterations``.
    For each number, the editor is trained separately. The list may be empty."""
    control_iterations: PositiveInt = 60
    """Number of iterations of RL of the editor in the control experiments (with a KL term, and with shuffled
    rewards)."""
    cases_per_iteration: PositiveInt = 8
    """Number of edit cases per iteration of RL of the editor."""
    group_size: Annotated[int, Field(ge=2)] = 16
    """Number of sampled edits per case, in RL of the editor."""
    max_new_tokens: PositiveInt = 96
    """Maximum number of tokens per trace."""
    bootstrap_samples: PositiveInt = 2000
    """Number of bootstrap resamples per confidence interval."""
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Maximum fraction of edits for which scoring may fail, in each evaluation."""

    @property
    def must_learn(self) -> bool:
        """Whether it is an error if no trace of a training run or of a service can be parsed.

        This is not an error if the settings allow all scoring to fail, as in the smallest settings, which only test
        that everything runs.
        """
        return self.max_failed_fraction < 1

    @model_validator(mode="after")
    def _possible(self) -> Self:
        faults = []
        if len(self.averaged) < 2 or self.averaged[0] != 1 or list(self.averaged) != sorted(set(self.averaged)):
            faults.append(
                f"averaged {list(self.averaged)}: the first number must be 1, followed by at least one larger number, in ascending order"
            )
        if any(n >= self.pairs for n in self.few_pairs):
            faults.append(
                f"few_pairs {list(self.few_pairs)}: each number must be below the setting pairs ({self.pairs}); lower the number or raise pairs"
            )
        if any(n >= self.iterations for n in self.editor_curve):
            faults.append(
                f"editor_curve {list(self.editor_curve)}: each number must be below the setting iterations ({self.iterations}); lower the number or raise iterations"
            )
        fewest = min((*self.few_pairs, self.pairs))
        if fewest < self.pairs_per_rollout:
            faults.append(
                f"pairs_per_rollout {self.pairs_per_rollout}: must be at most {fewest}, the smallest number of training pairs in"
                " the settings pairs and few_pairs; lower pairs_per_rollout or raise that number"
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
"""Smallest settings, for tests. All experiments run with these settings, but their results are meaningless."""
