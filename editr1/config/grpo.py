"""Settings of the editor's training with Flow-GRPO (arXiv 2604.27505, section 3.3, and arXiv 2505.05470).

The defaults are the values with which the small editor of the shapes dataset was evaluated. If a large editor needs a
different value, the description of the setting gives it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from editr1.config.base import PositiveOrNone, Settings
from editr1.config.errors import ConfigError
from editr1.training_signal import FIRST_ROLLOUTS

MAX_FLOW_NOISE = 1.2
"""Largest noise level (a) that is accepted for Flow-SDE. The first denoising step (sigma = 1) multiplies the latents
by the factor 1 - a^2/2. This factor is 0.28 for a = 1.2, and smaller for larger a."""


class LoraConfig(Settings):
    """Settings of the transformer's low-rank adapters (peft), which are used if ``tune`` is "lora"."""

    rank: PositiveInt = 32
    """Rank of the adapters. Public Flow-GRPO recipes use 32 to 64."""
    alpha: PositiveInt = 64
    """Numerator of the factor by which the adapters' output is multiplied: ``alpha`` / ``rank``."""
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
    """Names of the linear layers that get an adapter, or suffixes of these names. Names that the model does not have
    are ignored."""


class GrpoConfig(Settings):
    """Settings of Flow-GRPO training of an image editor."""

    iterations: PositiveInt = 80
    """Number of training iterations. Each iteration samples edits, scores them, and updates the weights."""
    cases_per_iteration: PositiveInt = 8
    """Number of edit cases per iteration, in total over all processes. It must be divisible by the number of
    processes."""
    group_size: Annotated[int, Field(ge=2)] = 16
    """Number of sampled edits per case (G). The paper uses 24."""
    passes: PositiveInt = 1
    """Number of optimization passes over the samples of an iteration. With one pass and one optimizer step per pass,
    the probability ratio is 1 and clipping has no effect."""
    update_every: Literal["iteration", "step"] = "iteration"
    """Frequency of optimizer steps in an optimization pass: "iteration" takes one optimizer step per pass, and "step"
    takes one per trained denoising step."""

    num_inference_steps: Annotated[int, Field(ge=2)] = 8
    """Number of denoising steps per sampled edit (T)."""
    guidance_scale: Annotated[float, Field(ge=0.0)] = 2.5
    """Guidance scale. For FLUX.1-Kontext, it is the distilled guidance scale, which models without distilled guidance
    ignore. For Qwen-Image-Edit, it is the scale of classifier-free guidance (true CFG), which is off at 1 or below. The
    public recipe of Qwen-Image-Edit uses 4."""
    resolution: PositiveOrNone = 512
    """Area of the edited image, given as the side length, in pixels, of a square with the same area. Source images
    are resized to this area. Their aspect ratio is preserved, except for rounding to the multiples that the VAE
    requires. Null or 0 keeps the size of each source image, up to an area of 1024 x 1024 pixels."""
    reference_resolution: PositiveInt | None = None
    """Area of the reference image (the source image that the editor sees), given like ``resolution``. Null: same as
    ``resolution``. QwenImageEditPipeline of diffusers always uses 1024."""
    max_text_tokens: PositiveInt | None = None
    """Length, in tokens, to which prompts are padded for the T5 text encoder of FLUX. Use the value with which the
    editor was pretrained. Null: the limit of the tokenizer, but at most 512."""

    sde: Literal["flow", "cps"] = "flow"
    """Formula for a stochastic denoising step: "flow" (Flow-SDE, arXiv 2505.05470) or "cps" (coefficients-preserving
    sampling, arXiv 2509.05952)."""
    noise_level: Annotated[float, Field(ge=0.0)] = 0.8
    """Noise level of stochastic denoising steps. It must be at most 1.2 for Flow-SDE, even if the first denoising step
    is not stochastic, and at most 1 for CPS."""
    sde_window_size: PositiveOrNone = 3
    """Number of denoising steps in the window, which is the sequence of consecutive steps that are stochastic and
    trained. All other steps are deterministic. Null or 0: all steps of ``sde_window_range``."""
    sde_window_range: tuple[Annotated[int, Field(ge=0)], PositiveInt] | None = None
    """Denoising steps among which the window of trained steps is placed at random, as a half-open range [first, end).
    The window starts at step ``first`` or later, and its last step is before ``end``. Null: all steps except the last
    one, which is never trained."""
    sde_window_scope: Literal["iteration", "group"] = "iteration"
    """Set of samples that share a window of trained denoising steps. "iteration": one window is drawn per iteration.
    "group": one window is drawn per group, which consists of the samples of a case."""

    advantage_std: Literal["group", "batch"] = "batch"
    """Set of rewards whose standard deviation divides the advantages. "group": the rewards of the group, as in the
    paper. "batch": the rewards of the whole batch, as in the public code of Flow-GRPO. The divisor is the population
    standard deviation plus 1e-4."""
    advantage_clip: Annotated[float, Field(gt=0.0)] = 5.0
    """Advantages are clipped to [-advantage_clip, advantage_clip]."""
    clip_range: Annotated[float, Field(gt=0.0)] | None = None
    """The probability ratio is clipped to [1 - clip_range, 1 + clip_range]. Null: 1e-4 for Gaussian log-probabilities,
    and 1e-5 for ``cps_logprob: public``, because these log-probabilities have a different scale."""
    cps_logprob: Literal["gaussian", "public"] = "gaussian"
    """Log-probability of a denoising step with CPS. "gaussian": the log-density of the Gaussian. "public": -(x -
    mean)^2, without the factor 1/(2 std^2) and without constants, as in the public code."""
    kl: Literal["flow_grpo", "gaussian", "velocity"] = "flow_grpo"
    """Estimate of the KL divergence from the initial editor. Let d be the difference between the means that the trained
    and the initial editor predict. "flow_grpo": the mean of d^2 / (2 s^2), with diffusion coefficient s. "gaussian":
    the exact KL divergence of the two Gaussians, per element. "velocity": the mean squared difference of the predicted
    velocities."""
    beta: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the KL divergence in the loss. The paper uses 0.04 with ``kl: flow_grpo``."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """Constant learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Maximum norm of the gradient of all trained weights. Larger gradients are scaled down."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    """Decay of the exponential moving average (EMA) of the weights. The trained editor contains the averaged weights.
    With 0, it contains the weights after the last optimizer step."""
    tune: Literal["full", "lora"] = "full"
    """Train the whole transformer ("full") or low-rank adapters ("lora"). Use "lora" for large editors."""
    lora: LoraConfig = LoraConfig()
    """Settings of the low-rank adapters, for ``tune: lora``."""

    micro_batch_size: PositiveInt = 32
    """Number of samples per forward pass on each process, in sampling and in training."""
    precision: Literal["fp32", "bf16-mixed"] = "fp32"
    """Numeric precision. With "bf16-mixed", forward and backward passes run under bfloat16 autocast, and frozen weights
    are stored in bfloat16. Trained weights, optimizer state and log-probabilities are fp32 with both values."""
    trajectory_dtype: Literal["fp32", "bf16"] = "fp32"
    """Data type in which sampled trajectories are stored until training uses them. With "bf16", sampling continues from
    the rounded latents, so that probability ratios are 1 before the first update."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass. This takes less memory and more time."""

    shuffle_rewards: bool = False
    """Permute the scores within each group at random, so that they contain no information (control experiment)."""
    num_traces: PositiveInt = 1
    """Number of traces that the verifier writes per edit. The score of the edit is the average of the scores in these
    traces."""
    score_batch_size: PositiveInt = 32
    """Maximum number of edits per request to the reward service."""
    reward_concurrency: PositiveInt = 4
    """Maximum number of concurrent requests that each process sends to the reward service."""
    reward_ready_timeout_seconds: Annotated[float, Field(ge=0.0, le=86400.0)] = 900.0
    """Maximum time, in seconds, to wait for a reward service that is not ready. For example, a service that is scaled
    up from zero first loads its weights. If the service becomes unreachable later, a request waits for the same time,
    but at least 3 minutes."""
    overlap: bool = True
    """Score sampled edits while the next edits are sampled. Disable this only to measure how much time it saves."""
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    """Maximum fraction of an iteration's edits for which scoring may fail. Above this fraction, training stops with
    exit code 4."""
    max_iterations_without_signal: PositiveOrNone = FIRST_ROLLOUTS
    """Number of iterations without any signal that are allowed at the start of training. A group has a signal if it
    has at least two different scores. After these iterations, or after the last iteration if there are fewer,
    training stops with exit code 3 and the reason, because the weights have not changed. After a group with a signal,
    training is never stopped for this reason. Null or 0 disables the check."""

    checkpoint_every: PositiveInt = 20
    """Number of iterations between checkpoints."""
    seed: int = 0
    """Random seed for the order of cases, the choice of windows, the noise, and the initial adapter weights. The noise of a
    sample depends on the seed, the iteration, the case and the index of the sample, but not on the number of
    processes."""

    @property
    def clip_bounds(self) -> tuple[float, float]:
        """Bounds to which the probability ratio is clipped: 1 - ``clip_range`` and 1 + ``clip_range``."""
        clip = self.clip_range
        if clip is None:
            clip = 1e-5 if self.sde == "cps" and self.cps_logprob == "public" else 1e-4
        return 1.0 - clip, 1.0 + clip

    @property
    def window_range(self) -> tuple[int, int]:
        """Denoising steps [first, end) among which the window of trained steps is placed.

        This is the setting ``sde_window_range``, or its default if it is null.
        """
        return (0, self.num_inference_steps - 1) if self.sde_window_range is None else self.sde_window_range

    @property
    def window_steps(self) -> int:
        """Number of trained denoising steps per sample.

        This is the setting ``sde_window_size``, or its default if it is null.
        """
        first, end = self.window_range
        return end - first if self.sde_window_size is None else self.sde_window_size

    @model_validator(mode="after")
    def _consistent(self) -> GrpoConfig:
        if self.sde == "flow" and self.noise_level > MAX_FLOW_NOISE:
            raise ValueError(
                f"noise_level {self.noise_level} is too large for Flow-SDE, whose first step multiplies the latents by"
                f" 1 - noise_level^2 / 2: set noise_level to at most {MAX_FLOW_NOISE}, or set sde to cps"
            )
        if self.sde == "cps" and self.noise_level > 1.0:
            raise ValueError(f"noise_level {self.noise_level} is too large for CPS: set it to at most 1")
        if self.noise_level == 0.0:
            raise ValueError(
                "noise_level 0: all samples of a group would be identical, so nothing could be learned; set "
                "noise_level above 0"
            )
        first, end = self.window_range
        if end > self.num_inference_steps - 1:
            raise ValueError(
                f"sde_window_range [{first}, {end}): the last step is never trained; set the end of the range to at most"
                f" num_inference_steps - 1 = {self.num_inference_steps - 1}"
            )
        if first + self.window_steps > end or self.window_steps < 1:
            raise ValueError(
                f"sde_window_size {self.window_steps} does not fit into sde_window_range [{first}, {end}): reduce"
                " sde_window_size, widen sde_window_range or increase num_inference_steps"
            )
        return self

    def check_processes(self, processes: int) -> None:
        """Raise ConfigError if the cases of an iteration cannot be divided evenly among ``processes``."""
        if self.cases_per_iteration % processes:
            raise ConfigError(
                f"cases_per_iteration {self.cases_per_iteration} is not a multiple of the number of processes; use a"
                f" multiple of {processes}"
            )
