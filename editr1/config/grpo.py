"""Settings of RL of the image editor (Flow-GRPO; arXiv 2604.27505, section 3.3, and arXiv 2505.05470).

The defaults are the recipe that was evaluated on the shapes dataset. The descriptions give values for large editors.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from editr1.config.base import Settings

MAX_FLOW_NOISE = 1.2
"""Largest noise level a of Flow-SDE: above it, the first step (sigma = 1) scales the latents by 1 - a^2/2 < 0.28."""


class LoraConfig(Settings):
    """Low-rank adapters of the transformer (peft), used if ``tune`` is "lora"."""

    rank: PositiveInt = 32
    """Rank of the adapters. Public Flow-GRPO recipes use 32 to 64."""
    alpha: PositiveInt = 64
    """Scale: the adapter's output is multiplied by alpha / rank."""
    targets: tuple[str, ...] = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.add_q_proj",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
    )
    """Names, or suffixes of names, of the linear layers that get an adapter. Names that the model does not have are
    ignored."""


class GrpoConfig(Settings):
    """Settings of Flow-GRPO training of an image editor."""

    iterations: PositiveInt = 80
    """Number of iterations; each samples, scores and updates."""
    cases_per_iteration: PositiveInt = 8
    """Edit cases per iteration, over all processes. Must be divisible by the number of processes."""
    group_size: Annotated[int, Field(ge=2)] = 16
    """Samples per case (G). The paper uses 24."""
    passes: PositiveInt = 1
    """Optimization passes over the samples of an iteration. With one pass and one update the ratio is 1 and clipping
    has no effect."""
    update_every: Literal["iteration", "step"] = "iteration"
    """One optimizer step per pass ("iteration"), or one per denoising step of the window ("step")."""

    num_inference_steps: Annotated[int, Field(ge=2)] = 8
    """Denoising steps per sample (T)."""
    guidance_scale: Annotated[float, Field(ge=0.0)] = 2.5
    """FLUX.1-Kontext: the distilled guidance scale (ignored by models without it). Qwen-Image-Edit: the true CFG
    scale; at 1 or below CFG is off, and the public recipe uses 4."""
    resolution: PositiveInt | None = 512
    """Area of an edit, as the side in pixels of a square of that area. Sources are resized to it with their aspect
    ratio kept and sides rounded to what the VAE requires. Null keeps the size of each source, at most an area of
    1024 x 1024 pixels."""
    reference_resolution: PositiveInt | None = None
    """Area of the reference image that the editor is conditioned on, specified like ``resolution``. Null: same as
    ``resolution``. The plain QwenImageEditPipeline always uses 1024."""
    max_text_tokens: PositiveInt | None = None
    """Length in tokens to which FLUX's T5 text is padded. Null: the limit of the tokenizer, at most 512. Must be the value
    with which the editor was trained."""

    sde: Literal["flow", "cps"] = "flow"
    """Stochastic step: "flow" (Flow-SDE, arXiv 2505.05470) or "cps" (coefficients-preserving sampling, arXiv
    2509.05952)."""
    noise_level: Annotated[float, Field(ge=0.0)] = 0.8
    """Noise level a. At most 1.2 for Flow-SDE, regardless of the window, and at most 1 for CPS."""
    sde_window_size: PositiveInt | None = 3
    """Number of consecutive stochastic steps, which are the trained ones; the other steps are deterministic. Null: all
    steps of ``sde_window_range``."""
    sde_window_range: tuple[Annotated[int, Field(ge=0)], PositiveInt] | None = None
    """Steps in which the window lies, as the half-open range [first, end): the window starts at step ``first`` or later,
    and its last step is before ``end``. Null: all steps but the last denoising step, which is never trained."""
    sde_window_scope: Literal["iteration", "group"] = "iteration"
    """One window for all samples of an iteration, or one per group. The samples of a group always share a window."""

    advantage_std: Literal["group", "batch"] = "batch"
    """Standard deviation that divides the advantage: of the group (the paper) or of the whole batch (public Flow-
    GRPO). Population standard deviation plus 1e-4."""
    advantage_clip: Annotated[float, Field(gt=0.0)] = 5.0
    """Advantages are clipped to plus and minus this value."""
    clip_range: Annotated[float, Field(gt=0.0)] | None = None
    """The probability ratio is clipped to [1 - clip_range, 1 + clip_range]. Null: 1e-4 for Gaussian log-probabilities,
    and 1e-5 for ``cps_logprob: public``, which has another scale."""
    cps_logprob: Literal["gaussian", "public"] = "gaussian"
    """Log-probability of CPS: the Gaussian density, or -(x - mean)^2 without 1/(2 std^2) and constants, as in the
    public code."""
    kl: Literal["flow_grpo", "gaussian", "velocity"] = "flow_grpo"
    """KL estimate: mean ||dmean||^2 / (2 s^2) (flow_grpo), the exact Gaussian KL per element (gaussian), or the MSE of
    velocities (velocity)."""
    beta: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the KL term. The paper uses 0.04 with ``flow_grpo``."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """Learning rate of AdamW, constant."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """The gradient of all trained weights is clipped to this norm."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    """Decay of the exponential moving average of the weights, which is what the output contains. With 0 the output
    contains the last weights."""
    tune: Literal["full", "lora"] = "full"
    """Train the whole transformer ("full") or low-rank adapters ("lora"). Use "lora" for large editors."""
    lora: LoraConfig = LoraConfig()
    """Adapter settings of ``tune: lora``."""

    micro_batch_size: PositiveInt = 32
    """Samples per forward pass, in sampling and in training."""
    precision: Literal["fp32", "bf16-mixed"] = "fp32"
    """"fp32", or "bf16-mixed": forward and backward passes under bfloat16 autocast, with frozen weights in bfloat16.
    Trained weights, optimizer state and log-probabilities are fp32 in both."""
    trajectory_dtype: Literal["fp32", "bf16"] = "fp32"
    """Data type of trajectories between sampling and training. With bf16, sampling continues from the rounded latents,
    so that ratios start at 1."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""

    shuffle_rewards: bool = False
    """Control experiment: permute the scores of each group at random, so that they carry no information."""
    num_traces: PositiveInt = 1
    """Verifier traces averaged into one score."""
    score_batch_size: PositiveInt = 32
    """Maximum number of edits per call of the scorer."""
    reward_concurrency: PositiveInt = 4
    """Maximum number of concurrent scorer calls per process."""
    reward_ready_timeout_seconds: Annotated[float, Field(ge=0.0, le=86400.0)] = 900.0
    """Maximum time to wait for a reward service that is not ready, in seconds. A service that is scaled up from zero
    loads its weights first. A score waits as long, and at least 3 minutes, for a service that became unreachable."""
    overlap: bool = True
    """Score finished samples while the next ones are sampled. Disable it only to measure the gain."""
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    """Maximum accepted fraction of failed scores per iteration; above it the training stops with exit code 4."""

    checkpoint_every: PositiveInt = 20
    """Iterations between checkpoints."""
    seed: int = 0
    """Seed of case order, windows, noise and adapters. Noise depends on (seed, iteration, case, sample) only, not on
    the number of processes."""

    @property
    def clip_bounds(self) -> tuple[float, float]:
        """Smallest and largest ratio after clipping: 1 - clip_range and 1 + clip_range."""
        clip = self.clip_range
        if clip is None:
            clip = 1e-5 if self.sde == "cps" and self.cps_logprob == "public" else 1e-4
        return 1.0 - clip, 1.0 + clip

    @property
    def window_range(self) -> tuple[int, int]:
        """Steps [first, end) in which the window lies."""
        return (0, self.num_inference_steps - 1) if self.sde_window_range is None else self.sde_window_range

    @property
    def window_steps(self) -> int:
        """Number of trained steps per sample."""
        first, end = self.window_range
        return end - first if self.sde_window_size is None else self.sde_window_size

    @model_validator(mode="after")
    def _consistent(self) -> GrpoConfig:
        if self.sde == "flow" and self.noise_level > MAX_FLOW_NOISE:
            raise ValueError(
                f"noise_level {self.noise_level} is too large for Flow-SDE, whose first step scales the latents by"
                f" 1 - a^2/2: set it to at most {MAX_FLOW_NOISE}, or set sde to cps"
            )
        if self.sde == "cps" and self.noise_level > 1.0:
            raise ValueError(f"noise_level {self.noise_level} is too large for CPS: set it to at most 1")
        if self.noise_level == 0.0:
            raise ValueError(
                "noise_level 0 leaves nothing to learn, because the samples of a group would be equal: set it above 0"
            )
        first, end = self.window_range
        if end > self.num_inference_steps - 1:
            raise ValueError(
                f"sde_window_range [{first}, {end}): set its end to at most num_inference_steps - 1 ="
                f" {self.num_inference_steps - 1}, since the last step is never trained"
            )
        if first + self.window_steps > end or self.window_steps < 1:
            raise ValueError(
                f"sde_window_size {self.sde_window_size} does not fit into steps [{first}, {end}) of"
                f" {self.num_inference_steps}, of which the last step is never trained"
            )
        return self
