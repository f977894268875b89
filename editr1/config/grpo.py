"""Settings of the editor's reinforcement learning (Flow-GRPO, arXiv 2604.27505 section 3.3; arXiv 2505.05470).

Defaults are the recipe measured on the project's small world; those of large editors are named in the descriptions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from editr1.config.base import Settings

MAX_FLOW_NOISE = 1.2
"""Above this noise level Flow-SDE's first step (sigma 1) scales the latents by 1 - a^2/2 < 0.28."""


class LoraConfig(Settings):
    """Low-rank adapters of the transformer (peft). Used when ``tune`` is "lora"."""

    rank: PositiveInt = 32
    """Rank r of each adapter. Public Flow-GRPO recipes take 32 to 64."""
    alpha: PositiveInt = 64
    """Scale of the adapter's output is alpha / rank."""
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
    """Names (or their ends) of the linear layers that get an adapter; names that a model lacks are ignored."""


class GrpoConfig(Settings):
    """One Flow-GRPO training of an editor."""

    iterations: PositiveInt = 80
    """Iterations: each samples, scores and updates."""
    cases_per_iteration: PositiveInt = 8
    """Edit cases an iteration, over all processes; must divide evenly among them."""
    group_size: Annotated[int, Field(ge=2)] = 16
    """Samples a case (G). The paper takes 24."""
    passes: PositiveInt = 1
    """Optimisation passes over each iteration's samples. With one pass and one update the ratio is 1 and the clip inert."""
    update_every: Literal["iteration", "step"] = "iteration"
    """One optimiser update a pass ("iteration"), or one for each denoising step of the window ("step")."""

    num_inference_steps: Annotated[int, Field(ge=2)] = 8
    """Denoising steps of a sample (T)."""
    guidance_scale: Annotated[float, Field(ge=0.0)] = 2.5
    """FLUX.1-Kontext: the distilled guidance value (ignored by models without it). Qwen-Image-Edit: the true CFG scale; at 1 or below CFG is off (public recipe: 4)."""
    resolution: PositiveInt | None = 512
    """Side in pixels of a square of the edit's area: sources are resized to that area with their aspect kept, sides rounded to what the VAE needs. None keeps each source's own size, at most 1024 x 1024 pixels of area."""
    reference_resolution: PositiveInt | None = None
    """The same for the reference picture given to the editor; None means as the edit. Plain QwenImageEditPipeline always takes 1024."""
    max_text_tokens: PositiveInt | None = None
    """Length to which FLUX's T5 text is padded; None takes the tokenizer's own, at most 512. Must be what the editor was trained with."""

    sde: Literal["flow", "cps"] = "flow"
    """Stochastic step: "flow" (Flow-SDE, arXiv 2505.05470) or "cps" (coefficients-preserving, arXiv 2509.05952)."""
    noise_level: Annotated[float, Field(ge=0.0)] = 0.8
    """Noise level a. Flow-SDE takes at most 1.2, wherever the window starts; CPS at most 1."""
    sde_window_size: PositiveInt | None = 3
    """Consecutive stochastic steps that are trained; the others are deterministic. None: every step but the last."""
    sde_window_range: tuple[Annotated[int, Field(ge=0)], PositiveInt | None] = (0, None)
    """Steps [first, end) that a window may cover: it starts at step ``first`` at the earliest and ends before step ``end``. An ``end`` of
    None is the last step, which is never trained."""
    sde_window_scope: Literal["iteration", "group"] = "iteration"
    """One window for all samples of an iteration, or one for each group. Never differs inside a group."""

    advantage_std: Literal["group", "batch"] = "batch"
    """Spread that divides the advantage: of the group (the paper) or of the whole batch (public Flow-GRPO), population, + 1e-4."""
    advantage_clip: Annotated[float, Field(gt=0.0)] = 5.0
    """Advantages are clipped to plus and minus this."""
    clip_range: Annotated[float, Field(gt=0.0)] | None = None
    """Clip range of the ratio. None: 1e-4 for Gaussian log-probabilities, 1e-5 for public CPS ones, which live on another scale."""
    cps_logprob: Literal["gaussian", "public"] = "gaussian"
    """CPS log-probability: the Gaussian density, or the public code's -(x - mean)^2 without 1/(2 std^2) and constants."""
    kl: Literal["flow_grpo", "gaussian", "velocity"] = "flow_grpo"
    """Which quantity is called KL: mean ||dmean||^2 / (2 s^2) (flow_grpo), the exact Gaussian KL an element, or the MSE of velocities."""
    beta: Annotated[float, Field(ge=0.0)] = 0.0
    """KL coefficient. The paper takes 0.04, in units of ``flow_grpo``."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """Learning rate of AdamW, constant."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Largest norm of the gradient over all trained weights."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    """Decay of the running mean of the weights, which is what the output holds; 0 keeps the last weights."""
    tune: Literal["full", "lora"] = "full"
    """Train the whole transformer, or low-rank adapters. Large editors: "lora"."""
    lora: LoraConfig = LoraConfig()
    """Adapter settings for ``tune: lora``."""

    micro_batch_size: PositiveInt = 32
    """Samples a forward, in sampling and in training alike."""
    precision: Literal["fp32", "bf16-mixed"] = "fp32"
    """Arithmetic of the models. Trained weights and log-probabilities stay fp32 in either case."""
    trajectory_dtype: Literal["fp32", "bf16"] = "fp32"
    """Type in which trajectories are kept between sampling and training. With bf16 the sampler continues from the rounded latents, so that ratios start at 1."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""

    shuffle_rewards: bool = False
    """A control: each group's scores are dealt out at random among its samples, so that there is nothing to learn."""
    num_traces: PositiveInt = 1
    """Verifier traces averaged into one score."""
    score_batch_size: PositiveInt = 32
    """Most edits in one call of the scorer."""
    reward_concurrency: PositiveInt = 4
    """Scorer calls in flight at once, a process."""
    reward_ready_timeout_seconds: Annotated[float, Field(ge=0.0, le=86400.0)] = 900.0
    """Longest wait, in seconds, for a reward service that is not ready yet: one that scales from nothing loads its weights first. A score waits as long (3 minutes at least) for one that has gone."""
    overlap: bool = True
    """Score finished samples while the next ones are sampled. Off only to measure what it gains."""
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    """Largest share of failed scores in an iteration; above it the training stops (exit 4)."""

    checkpoint_every: PositiveInt = 20
    """Iterations between checkpoints."""
    seed: int = 0
    """Seed of case order, windows, noise and adapters. Noise depends on (seed, iteration, case, sample) only, not on the number of processes."""

    @property
    def clip_bounds(self) -> tuple[float, float]:
        """Smallest and largest ratio after clipping: 1 - clip_range and 1 + clip_range."""
        clip = self.clip_range
        if clip is None:
            clip = 1e-5 if self.sde == "cps" and self.cps_logprob == "public" else 1e-4
        return 1.0 - clip, 1.0 + clip

    @property
    def window_steps(self) -> int:
        """Number of trained steps a sample."""
        return self.sde_window_size if self.sde_window_size is not None else self.window_end - self.sde_window_range[0]

    @property
    def window_end(self) -> int:
        """First step that no window may hold."""
        end = self.sde_window_range[1]
        return self.num_inference_steps - 1 if end is None else end

    @model_validator(mode="after")
    def _consistent(self) -> GrpoConfig:
        if self.sde == "flow" and self.noise_level > MAX_FLOW_NOISE:
            raise ValueError(
                f"noise_level {self.noise_level} is too much for Flow-SDE: its first step scales the latents by"
                f" 1 - a^2/2; allowed up to {MAX_FLOW_NOISE}, or sde: cps"
            )
        if self.sde == "cps" and self.noise_level > 1.0:
            raise ValueError(f"noise_level {self.noise_level}: CPS allows 0 to 1")
        if self.noise_level == 0.0:
            raise ValueError(
                "noise_level 0 leaves nothing to learn from: the samples of a group would not differ in the window"
            )
        if self.window_end > self.num_inference_steps - 1:
            raise ValueError(
                f"sde_window_range {self.sde_window_range}: its end may be at most num_inference_steps - 1 = {self.num_inference_steps - 1}; the last step is never trained"
            )
        if self.sde_window_range[0] + self.window_steps > self.window_end or self.window_steps < 1:
            raise ValueError(
                f"sde_window_size {self.sde_window_size} does not fit between step {self.sde_window_range[0]}"
                f" and step {self.window_end} (num_inference_steps {self.num_inference_steps}, the last one is never trained)"
            )
        return self
