"""Settings of the stage ``evaluate``: accuracy of verifiers, quality of editors, and public benchmarks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings, Temperature
from editr1.config.curate import CurateConfig
from editr1.config.llm import VlmConfig


class PublicSetsConfig(Settings):
    """Settings of the evaluation on public benchmarks.

    A VLM behind an OpenAI-compatible endpoint writes principles for the reward benchmarks and rates the edits of the
    editor benchmarks.
    """

    labeller: CurateConfig = CurateConfig()
    """Settings for writing principles, in the same format as the settings of curation (``endpoints``, ``decomposer``,
    ``principles`` and others)."""

    judge: VlmConfig = VlmConfig(model="judge")
    """Model that rates edits on GEdit-Bench and ImgEdit-Bench. The ``endpoint`` of this model must be a name in
    ``labeller.endpoints``."""

    protocol: Literal["published", "ours", "both"] = "both"
    """Scoring protocol: "published" is the protocol of the benchmark's authors, "ours" is the protocol of this project,
    and "both" reports the results of the two protocols side by side."""

    epsilon: Annotated[float, Field(ge=0.0, le=10.0)] | None = None
    """Tie threshold of protocol "ours" on TIGER's EditReward-Bench: two scores that differ by at most this value count
    as a tie. Tune it on pairs outside the benchmark. Null: each half of the benchmark uses the value tuned on the other
    half."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.judge.endpoint not in self.labeller.endpoints:
            known = ", ".join(sorted(self.labeller.endpoints)) or "none"
            raise ValueError(
                f"judge.endpoint: {self.judge.endpoint!r} is not in labeller.endpoints ({known}); use one of these names or add it there"
            )
        return self


class EvaluateConfig(Settings):
    """Settings of the evaluate stage: evaluated data, sampling and statistics."""

    max_pairs: Annotated[int, Field(ge=1)] = 1000
    """Maximum number of held-out preference pairs on which each verifier is evaluated."""

    max_cases: Annotated[int, Field(ge=1)] = 1000
    """Maximum number of held-out cases on which the editors before and after RL are evaluated."""

    ground_truth: Literal["shapes", "none"] = "none"
    """Source of the true score of an edit. "shapes": computed from the edited image, for images of the shapes dataset.
    "none": not available, for all other images, such as photographs."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed for the noise from which edits are sampled, for the sampling of traces, the choice of gallery
    cases, and the bootstrap."""

    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Number of bootstrap resamples per confidence interval."""

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Confidence level of the two-sided confidence intervals."""

    num_traces: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of traces that the verifier writes per edit. The score of the edit is the average of the scores in these
    traces."""

    temperature: Temperature = 0.0
    """Sampling temperature of the verifier: 0 (greedy) or from 0.01 to 2. More than one trace requires a temperature above 0."""

    min_parsed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Minimum fraction of an edit's traces that must be parsed for the edit to get a score, which is the mean over the
    parsed traces. At least one trace must be parsed. An edit with fewer parsed traces counts as failed."""

    score_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Number of edits that the verifier scores per batch."""

    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Maximum fraction of edits for which scoring may fail. The stage stops above this fraction with exit code 4. The
    limit applies to the preference pairs, to the editors and to each public benchmark."""

    num_inference_steps: Annotated[int, Field(ge=1, le=200)] = 8
    """Number of denoising steps per edit."""

    guidance_scale: Annotated[float, Field(ge=0.0, le=30.0)] = 2.5
    """Guidance scale of the editor. Use the same value as in the grpo stage."""

    resolution: Annotated[int, Field(ge=16)] | None = None
    """Area of the edited image, given as the side length, in pixels, of a square with the same area. Null keeps the
    size of each source image, up to 1 megapixel."""

    reference_resolution: Annotated[int, Field(ge=16)] | None = None
    """Area of the reference image (the source image that the editor sees), given like ``resolution``. Use the same
    value as in the grpo stage. Null: same as ``resolution``."""

    max_text_tokens: Annotated[int, Field(ge=1)] | None = None
    """Length, in tokens, to which prompts are padded for the T5 text encoder of FLUX. Use the same value as in the grpo
    stage. Null: the limit of the tokenizer, but at most 512."""

    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 1024
    """Maximum number of tokens per trace."""

    score_edits: bool = False
    """Score all edits with the verifier even if the ground truth is known. If false and the ground
    truth is known, the verifier scores only the edits in the report's gallery."""

    sample_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Number of cases that the editor edits per batch."""

    gallery_size: Annotated[int, Field(ge=0, le=64)] = 8
    """Number of cases in the report's gallery. The gallery shows the edits before and after RL, with the verifier's
    reasoning."""

    public: PublicSetsConfig = PublicSetsConfig()
    """Settings of the evaluation on public benchmarks. The benchmarks are inputs of the stage."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.num_traces > 1 and self.temperature == 0.0:
            raise ValueError(
                f"num_traces {self.num_traces} at temperature 0: all greedy traces of an edit are identical; set "
                "temperature above 0 or num_traces to 1"
            )
        return self
