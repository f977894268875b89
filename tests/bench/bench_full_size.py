"""Measure the memory and speed of training FLUX.1-Kontext and Qwen2.5-VL at full size on one GPU.

    python tests/bench/bench_full_size.py [editor] [verifier] [--tiny]

The weights are random, so the results do not show quality. The editor's sampling time is compared with a call of the
diffusers pipeline with the same samples and steps, and batched scoring with scoring one edit at a time. The script needs
60 GiB of GPU memory and, for the verifier, 17 GiB of shared memory or disk. ``--tiny`` uses small models to test the
script itself. The script prints one JSON object per part.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from editr1.config.gcpo import GcpoConfig
from editr1.config.grpo import GrpoConfig
from editr1.config.sft import SftConfig
from editr1.config.verifier import LoraSettings
from editr1.data.images import encode_png
from editr1.data.tables import write_table
from editr1.data.types import (
    Candidate,
    Category,
    EditCase,
    EncodedImage,
    PreferencePair,
    Principle,
    Quadruple,
    Scored,
    ScoreItem,
    ScoreOutcome,
    SftRow,
)
from editr1.editor.cases import CaseOrder
from editr1.editor.policies import FluxKontextPolicy
from editr1.editor.precision import precision_context
from editr1.editor.reward import RewardCollector
from editr1.editor.sampler import GroupSampler
from editr1.editor.trajectory import attach_advantages, attach_scores
from editr1.editor.tuning import Tuning
from editr1.editor.update import Updater
from editr1.parallel.context import DistributedContext
from editr1.serving.engines.base import Sampling
from editr1.serving.engines.transformers_engine import TransformersEngine
from editr1.serving.scoring import score_items
from editr1.shapes.tiny_editor import tiny_flux_kontext
from editr1.shapes.tiny_verifier import SPECIAL_TOKENS, build_tiny_verifier
from editr1.telemetry import TrainHooks
from editr1.verifier.gcpo import train_gcpo
from editr1.verifier.model import load_verifier, save_verifier
from editr1.verifier.prompt import PromptTemplate
from editr1.verifier.sft import train_sft
from editr1.verifier.trace import format_trace

GIB = 1 << 30
QUESTIONS = tuple(Principle(question=f"part {k} is as before?", category=Category.KEEP) for k in range(8))


@cache
def image(seed: int, side: int) -> EncodedImage:
    """Return a noise image as PNG."""
    return EncodedImage(
        data=encode_png(Image.frombytes("RGB", (side, side), random.Random(seed).randbytes(3 * side * side)))
    )


def case(number: int, side: int) -> EditCase:
    """Return a case with a noise image as source."""
    return EditCase(
        case_id=f"case-{number}", source=image(number, side), instruction="make it red", principles=QUESTIONS
    )


@contextmanager
def measured(device: torch.device, into: dict[str, float], name: str) -> Iterator[None]:
    """Store the seconds and the peak GiB of a block in ``into`` as ``<name>_s`` and ``<name>_gib``."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    yield
    if cuda:
        torch.cuda.synchronize()
        into[f"{name}_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
    into[f"{name}_s"] = round(time.perf_counter() - start, 3)
    print(f"{name} {into[f'{name}_s']} s", file=sys.stderr, flush=True)


def flux_kontext(device: torch.device, tiny: bool) -> Any:
    """Return a pipeline with random bf16 weights and the dimensions of black-forest-labs/FLUX.1-Kontext-dev."""
    pipeline = tiny_flux_kontext(0)
    if tiny:
        return pipeline.to(device)
    clip, t5 = pipeline.text_encoder.config.to_dict(), pipeline.text_encoder_2.config.to_dict()
    clip |= {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "projection_dim": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    }
    t5 |= {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            parts = {
                "vae": AutoencoderKL(
                    down_block_types=("DownEncoderBlock2D",) * 4,
                    up_block_types=("UpDecoderBlock2D",) * 4,
                    block_out_channels=(128, 256, 512, 512),
                    layers_per_block=2,
                    latent_channels=16,
                    sample_size=1024,
                    scaling_factor=0.3611,
                    shift_factor=0.1159,
                    use_quant_conv=False,
                    use_post_quant_conv=False,
                ),
                "text_encoder": CLIPTextModel(CLIPTextConfig(**clip)),
                "text_encoder_2": T5EncoderModel(T5Config(**t5)),
                "transformer": FluxTransformer2DModel(guidance_embeds=True),
            }
    finally:
        torch.set_default_dtype(torch.float32)
    others = {name: part for name, part in pipeline.components.items() if name not in parts}
    full = type(pipeline)(**others, **{name: part.to(device, torch.bfloat16).eval() for name, part in parts.items()})
    full.set_progress_bar_config(disable=True)
    return full


def dummy_scores(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
    """Return scores that differ within a group, without computing them from the images."""
    return [Scored(score=float(i % 10), verdicts=(), model_digest="fixed") for i in range(len(items))]


def editor(device: torch.device, tiny: bool, folder: Path) -> dict[str, float]:
    """Measure a diffusers pipeline call, our sampling, and the update for a group of 8 samples at 512 pixels and 8 steps."""
    side, text = (32, 64) if tiny else (512, 512)
    config = GrpoConfig(
        iterations=2,
        cases_per_iteration=1,
        group_size=8,
        num_inference_steps=8,
        resolution=side,
        precision="bf16-mixed",
        trajectory_dtype="bf16",
        tune="lora",
        gradient_checkpointing=True,
        micro_batch_size=4,
        learning_rate=1e-4,
        ema_decay=0.0,
    )
    pipeline = flux_kontext(device, tiny)
    policy = FluxKontextPolicy(pipeline, text_length=text)
    metrics: dict[str, float] = {
        "parameters": float(sum(p.numel() for p in pipeline.transformer.parameters())),
        "side": float(side),
    }
    write_table(folder / "cases.parquet", [case(k, side) for k in range(2)], EditCase)
    order = CaseOrder(folder / "cases.parquet", seed=0, per_iteration=1, iterations=2)
    keyed = [order.iteration(i)[0] for i in range(2)]
    shown = Image.new("RGB", (side, side))
    with torch.no_grad():
        for name in ("warm", "pipeline"):
            with measured(device, metrics, name):
                for _ in range(2):
                    pipeline(
                        image=[shown] * 4,
                        prompt=[keyed[0].case.instruction] * 4,
                        height=side,
                        width=side,
                        num_inference_steps=config.num_inference_steps,
                        guidance_scale=config.guidance_scale,
                        max_sequence_length=text,
                        max_area=side * side,
                        _auto_resize=False,
                    )
    tuning = Tuning(policy, config)
    optimizer = torch.optim.AdamW(tuning.weights.values(), lr=config.learning_rate)
    sampler = GroupSampler(policy, config)
    updater = Updater(policy, tuning, optimizer, None, config, sampler.settings, DistributedContext.initialize())
    metrics["adapter_parameters"] = float(sum(p.numel() for p in tuning.weights.values()))
    with RewardCollector(dummy_scores, batch_size=8, concurrency=1, overlap=True) as rewards:
        for i in range(2):  # the first iteration is a warm-up; its metrics are overwritten
            with measured(device, metrics, "sample"), precision_context(device, config.precision):
                batches = sampler.sample(i, [keyed[i]], rewards)
            scored = rewards.collect()
            batches = attach_scores(batches, scored.sample_ids, scored.scores, scored.valid_mask)
            advantages = torch.linspace(-1, 1, len(scored.scores))
            batches = attach_advantages(batches, scored.sample_ids, advantages, scored.valid_mask)
            with measured(device, metrics, "update"):
                stats = updater.update(batches, len(scored.scores), len(scored.scores))
            metrics["ratio_error_first"] = float(stats.first_ratio_error or 0.0)
            metrics["grad_norm"] = stats.grad_norms[-1]
    metrics["sampling_to_pipeline"] = round(metrics["sample_s"] / metrics["pipeline_s"], 3)
    return metrics


def qwen_vl(device: torch.device, tiny: bool, folder: Path) -> Path:
    """Write a verifier with random bf16 weights, the dimensions of Qwen/Qwen2.5-VL-7B-Instruct and a tiny tokenizer."""
    template = PromptTemplate() if not tiny else PromptTemplate(max_pixels=64 * 64)
    small = build_tiny_verifier(folder / "small", words=("as before?", "part "), template=template)
    if tiny:
        return small
    _, processor, template = load_verifier(small)
    processor.image_processor.patch_size = 14
    tokenizer: Any = processor.tokenizer
    tokenizer.model_max_length = 32768
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "out_hidden_size": 3584,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        dtype="bfloat16",
    )
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return save_verifier(model, processor, template, folder / "full")


class _LastSpeed:
    """Progress that records the last reported tokens per second."""

    tokens = 0.0

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Ignore phases."""

    def step(self, n: int = 1, **metrics: float) -> None:
        """Record the speed of a step."""
        self.tokens = metrics.get("tokens_per_second", 0.0)


def verifier(device: torch.device, tiny: bool, folder: Path) -> dict[str, float]:
    """Measure scoring, and a few steps of SFT and GCPO with adapters, with two images of 512 pixels per row."""
    side = 32 if tiny else 512
    metrics: dict[str, float] = {"side": float(side)}
    with measured(device, metrics, "build"):
        model = qwen_vl(device, tiny, folder)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with measured(device, metrics, "load"):
        engine = TransformersEngine.load(model, device=device.type, max_batch_size=32)
    items = [
        ScoreItem(source=image(0, side), edited=image(k, side), instruction="make it red", principles=QUESTIONS)
        for k in range(33)
    ]
    sampling = Sampling(max_tokens=64)
    score_items(engine, items[:1], sampling)
    with measured(device, metrics, "score_32_batched"):
        score_items(engine, items[1:], sampling)
    with measured(device, metrics, "score_2_single"):
        for item in items[1:3]:
            score_items(engine, [item], sampling)
    metrics["batched_to_single"] = round(16 * metrics["score_2_single_s"] / metrics["score_32_batched_s"], 2)
    engine.close()
    del engine
    if device.type == "cuda":
        torch.cuda.empty_cache()

    shared: dict[str, Any] = {
        "precision": "bf16-mixed",
        "gradient_checkpointing": True,
        "lora": LoraSettings(),
        "learning_rate": 1e-4,
        "warmup_steps": 0,
    }
    answers = "\n".join("nothing was changed here, so the part is as it was before." for _ in QUESTIONS)
    trace = format_trace(answers, QUESTIONS, [1] * len(QUESTIONS), 7.5)
    made = [Candidate(candidate_id=f"c-{k}", editor="any", image=image(k, side)) for k in range(16)]
    rows = [SftRow(quadruple=Quadruple(case=case(k, side), candidate=made[k]), trace=trace) for k in range(16)]
    write_table(folder / "rows.parquet", rows, SftRow)
    speed = _LastSpeed()
    with measured(device, metrics, "sft"):
        train_sft(
            SftConfig(max_steps=5, batch_size=16, micro_batch_size=8, **shared),
            model=model,
            rows=folder / "rows.parquet",
            output_dir=folder / "sft",
            hooks=TrainHooks(progress=speed),  # type: ignore[arg-type]
        )
    metrics["sft_tokens_per_s"] = round(speed.tokens)
    pairs = [PreferencePair(pair_id=f"p-{k}", case=case(k, side), winner=made[k], loser=made[k + 1]) for k in range(4)]
    write_table(folder / "pairs.parquet", pairs, PreferencePair)
    with measured(device, metrics, "gcpo"):
        train_gcpo(
            GcpoConfig(rollouts=2, pairs_per_rollout=4, num_traces=4, micro_batch_size=8, max_new_tokens=64, **shared),
            model=model,
            pairs=folder / "pairs.parquet",
            output_dir=folder / "gcpo",
            hooks=TrainHooks(),
        )
    return metrics


def main() -> None:
    """Run the selected parts and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=("editor", "verifier"), help="what to measure (default: both)")
    parser.add_argument("--tiny", action="store_true", help="use small models, also on a CPU")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.tiny:
        print("bench_full_size: no GPU is available, so nothing was measured; use --tiny to test the script")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shm = Path("/dev/shm")
    for part in arguments.parts or ("editor", "verifier"):
        with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
            metrics = {"editor": editor, "verifier": verifier}[part](device, arguments.tiny, Path(folder))
        name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        print(json.dumps({"part": part, "device": name, "torch": torch.__version__, **metrics}), flush=True)


if __name__ == "__main__":
    main()
