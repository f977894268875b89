"""Settings of the evaluation stage."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings
from editr1.config.curate import CurateConfig
from editr1.config.llm import VlmConfig


class PublicSetsConfig(Settings):
    """Public sets bring neither principles nor marks: a VLM behind an OpenAI-compatible endpoint writes them."""

    labeller: CurateConfig = CurateConfig()
    """Endpoints, and how the principles of a case are written (``decomposer``, ``principles``), as in curation."""

    judge: VlmConfig = VlmConfig(model="judge")
    """The model that marks edits on GEdit-Bench and ImgEdit-Bench; its ``endpoint`` is one of the labeller's."""

    protocol: Literal["published", "ours", "both"] = "both"
    """Scoring rule: as the sets' authors do, by this project's rule, or side by side."""

    epsilon: Annotated[float, Field(ge=0.0, le=10.0)] | None = None
    """Tie threshold on TIGER's set, fixed beforehand on other pairs. None: chosen on the other half of the set."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.judge.endpoint not in self.labeller.endpoints:
            known = ", ".join(sorted(self.labeller.endpoints)) or "none"
            raise ValueError(f"judge.endpoint: {self.judge.endpoint!r} is not one of labeller.endpoints ({known})")
        return self


class EvaluateConfig(Settings):
    """What is measured at the end of a run, on how much, and how sure the figures must be."""

    max_pairs: Annotated[int, Field(ge=1)] = 1000
    """Held-out preference pairs on which each verifier is judged; at most what the input holds."""

    max_cases: Annotated[int, Field(ge=1)] = 1000
    """Held-out cases that each editor edits, before and after RL; at most what the input holds."""

    ground_truth: Literal["shapes", "none"] = "none"
    """Source of an edit's true score: read from the picture in the shapes world, or unknown (photographs)."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of held-out draws, of sampling and of the bootstrap."""

    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Resamples behind each interval."""

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Two-sided confidence of each interval."""

    num_traces: Annotated[int, Field(ge=1, le=64)] = 1
    """Traces averaged into one score."""

    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Sampling temperature of the verifier; 0 is greedy. More than one trace needs more than 0."""

    score_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Edits handed to the scorer in one call."""

    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Largest share of failed scores of pairs or edits that an evaluation accepts; above it the stage stops. Public sets
    count theirs in their tables."""

    num_inference_steps: Annotated[int, Field(ge=1, le=200)] = 8
    """Denoising steps of an evaluated edit."""

    guidance_scale: Annotated[float, Field(ge=0.0, le=30.0)] = 2.5
    """Guidance scale handed to the editor, as in grpo: give both the same."""

    resolution: Annotated[int, Field(ge=16)] | None = None
    """Side in pixels of a square of an evaluated edit's area; null keeps each source's own (at most 1 megapixel)."""

    reference_resolution: Annotated[int, Field(ge=16)] | None = None
    """The same for the reference picture, as in grpo: give both the same. Null: as the edit."""

    max_text_tokens: Annotated[int, Field(ge=1)] | None = None
    """Length to which FLUX's T5 text is padded, as in training; null: the tokenizer's own, at most 512."""

    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 1024
    """Most tokens of a trace."""

    score_edits: bool = False
    """Where the truth is known: have the verifier score every edit too, not the gallery's alone."""

    sample_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Cases edited at once."""

    gallery_size: Annotated[int, Field(ge=0, le=64)] = 8
    """Cases shown in the report with both edits and the verifier's reasoning."""

    public: PublicSetsConfig = PublicSetsConfig()
    """How the public sets among the inputs are scored."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.num_traces > 1 and self.temperature == 0.0:
            raise ValueError(
                f"num_traces {self.num_traces} at temperature 0: greedy traces are all the same; set a temperature"
            )
        return self
