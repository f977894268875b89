"""Settings of the evaluation stage."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings
from editr1.config.curate import CurateConfig
from editr1.config.llm import VlmConfig


class PublicSetsConfig(Settings):
    """Evaluation on public benchmarks. A VLM behind an OpenAI-compatible endpoint writes their principles and ratings."""

    labeller: CurateConfig = CurateConfig()
    """Endpoints, and how the principles of a case are written (``decomposer``, ``principles``), as in curation."""

    judge: VlmConfig = VlmConfig(model="judge")
    """Model that rates edits on GEdit-Bench and ImgEdit-Bench. Its ``endpoint`` is one of the labeller's."""

    protocol: Literal["published", "ours", "both"] = "both"
    """Scoring protocol: that of the benchmark's authors, that of this project, or both side by side."""

    epsilon: Annotated[float, Field(ge=0.0, le=10.0)] | None = None
    """Tie threshold on TIGER's benchmark; determine it on other pairs. Null: it is tuned on the other half of the benchmark."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.judge.endpoint not in self.labeller.endpoints:
            known = ", ".join(sorted(self.labeller.endpoints)) or "none"
            raise ValueError(f"judge.endpoint: {self.judge.endpoint!r} is not in labeller.endpoints ({known})")
        return self


class EvaluateConfig(Settings):
    """Settings of the evaluate stage: evaluated data, sampling and statistics."""

    max_pairs: Annotated[int, Field(ge=1)] = 1000
    """Maximum number of held-out preference pairs on which each verifier is evaluated."""

    max_cases: Annotated[int, Field(ge=1)] = 1000
    """Maximum number of held-out cases on which the editors before and after RL are evaluated."""

    ground_truth: Literal["shapes", "none"] = "none"
    """Source of the true score of an edit: computed from the image (shapes dataset), or none (photographs)."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of held-out draws, of sampling and of the bootstrap."""

    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Bootstrap resamples per confidence interval."""

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Two-sided confidence level of each interval."""

    num_traces: Annotated[int, Field(ge=1, le=64)] = 1
    """Traces averaged into one score."""

    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Sampling temperature of the verifier; 0 is greedy. More than one trace requires a temperature above 0."""

    score_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Number of edits per call of the scorer."""

    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Maximum accepted fraction of failed scores of pairs or edits; above it the stage stops. The tables of public
    benchmarks count their own failures."""

    num_inference_steps: Annotated[int, Field(ge=1, le=200)] = 8
    """Denoising steps per edit."""

    guidance_scale: Annotated[float, Field(ge=0.0, le=30.0)] = 2.5
    """Guidance scale of the editor. Use the same value as in grpo."""

    resolution: Annotated[int, Field(ge=16)] | None = None
    """Area of an evaluated edit, as the side in pixels of a square of that area. Null keeps the size of each source,
    at most 1 megapixel."""

    reference_resolution: Annotated[int, Field(ge=16)] | None = None
    """Area of the reference image, specified like ``resolution``. Use the same value as in grpo. Null: same as
    ``resolution``."""

    max_text_tokens: Annotated[int, Field(ge=1)] | None = None
    """Length in tokens to which FLUX's T5 text is padded, as in training. Null: the limit of the tokenizer, at most 512."""

    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 1024
    """Maximum number of tokens per trace."""

    score_edits: bool = False
    """Score every edit with the verifier even if the ground truth is known; otherwise only the edits of the gallery
    are scored."""

    sample_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Number of cases per call of the editor."""

    gallery_size: Annotated[int, Field(ge=0, le=64)] = 8
    """Number of cases in the report's gallery, with both edits and the verifier's reasoning."""

    public: PublicSetsConfig = PublicSetsConfig()
    """Evaluation on the public benchmarks among the inputs."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.num_traces > 1 and self.temperature == 0.0:
            raise ValueError(
                f"num_traces {self.num_traces} at temperature 0: greedy traces are all equal; set temperature above 0"
            )
        return self
