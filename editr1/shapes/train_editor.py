"""Train the base editor of the shapes world and measure it: ``python -m editr1.shapes.train_editor --out DIR``.

First the VAE, then the flow with its text encoders; the folder written is a FluxKontextPipeline with bfloat16 weights.
About 19 minutes on one CPU thread (1,121 s measured beside another training).
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxKontextPipeline
from PIL import Image

from editr1.seeding import offset_seed, torch_generator
from editr1.shapes.cases import draw_cases
from editr1.shapes.drawing import SIDE
from editr1.shapes.editor_data import edit_rows, vae_pictures
from editr1.shapes.tiny_editor import T5_LENGTH, tiny_flux_kontext
from editr1.shapes.train_flow import FlowData, FlowRecipe, train_flow
from editr1.shapes.train_vae import VaeRecipe, decode_latents, encode_pictures, polish_decoder, train_vae
from editr1.shapes.truth import as_pixels, read_pictures, true_scores
from editr1.verifier.model import folder_digest

logger = logging.getLogger(__name__)

SUCCESS = 9.0
"""True score from which an edit counts as a success."""


def train_editor(
    out: Path,
    *,
    seed: int = 0,
    pictures: int = 24_000,
    cases: int = 24_000,
    vae_recipe: VaeRecipe | None = None,
    flow_recipe: FlowRecipe | None = None,
    vae: Path | None = None,
) -> None:
    """Train an editor and write its pipeline folder to ``out``, weights rounded to bfloat16.

    ``vae`` names the folder of a trained VAE to use instead of training one. A VAE that was trained here is written to
    ``out`` before the flow is trained.
    """
    pipeline = tiny_flux_kontext(seed)
    if vae is not None:
        pipeline.vae.load_state_dict(AutoencoderKL.from_pretrained(vae, torch_dtype=torch.float32).state_dict())
    else:
        recipe, drawn = vae_recipe or VaeRecipe(), vae_pictures(pictures, seed)
        train_vae(pipeline.vae, drawn, recipe, seed)
        polish_decoder(pipeline.vae, drawn, recipe, offset_seed(seed, 1))
        pipeline.vae.save_pretrained(out / "vae")
    pipeline.vae.to(torch.bfloat16).to(torch.float32)
    logger.info("vae %s", json.dumps(measure_vae(pipeline.vae)))
    rows = edit_rows(cases, seed)
    sources, perfect, faulty = (
        encode_pictures(pipeline.vae, part) for part in (rows.sources, rows.perfect, rows.faulty)
    )
    data = FlowData(sources, perfect, faulty, rows.instructions)
    train_flow(pipeline, data, flow_recipe or FlowRecipe(), seed)
    pipeline.to(torch.bfloat16)
    pipeline.save_pretrained(out)


@torch.no_grad()
def measure_vae(vae: AutoencoderKL, n: int = 500) -> dict[str, float]:
    """Send n drawn, clean source pictures through the VAE.

    ``parsed`` is the share that is then read as the same scene and clean, ``same`` as the same scene, ``residual`` the
    mean over pictures of the worst cell's rms distance from its template.
    """
    sources = np.stack([as_pixels(case.source) for case in draw_cases(n, 0, "vae-check")])
    decoded = decode_latents(vae, encode_pictures(vae, torch.from_numpy(sources).permute(0, 3, 1, 2)))
    before, after = read_pictures(sources), read_pictures(decoded.permute(0, 2, 3, 1).numpy())
    same = (before.cells == after.cells).all(1) & (before.grounds == after.grounds)
    return {
        "parsed": float((same & after.clean).mean()),
        "same": float(same.mean()),
        "residual": float(after.residuals.max(1).mean()),
    }


def measure_editor(
    folder: Path, n: int = 1000, *, steps: int = 8, seed: int = 0, batch_size: int = 100
) -> dict[str, float]:
    """Edit n held-out cases with the folder's FluxKontextPipeline and score them by the truth.

    Returns mean ``score`` with the half width of its 95 % interval, ``success`` (share with a score of at least 9), and
    the mean shares ``follow``, ``keep`` and ``quality``.
    """
    pipeline = FluxKontextPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    cases = draw_cases(n, seed, "editor-check")
    sources = np.stack([as_pixels(case.source) for case in cases])
    instructions = [case.instruction for case in cases]
    edited: list[np.ndarray] = []
    for start in range(0, n, batch_size):
        part = slice(start, start + batch_size)
        images = pipeline(
            image=[Image.fromarray(source) for source in sources[part]],
            prompt=instructions[part],
            height=SIDE,
            width=SIDE,
            max_area=SIDE * SIDE,
            num_inference_steps=steps,
            max_sequence_length=T5_LENGTH,
            generator=torch_generator(offset_seed(seed, start)),
            _auto_resize=False,
        ).images
        edited.extend(np.asarray(image) for image in images)
    marks = true_scores(sources, instructions, np.stack(edited))
    scores = np.asarray([mark.score for mark in marks])
    return {
        "score": float(scores.mean()),
        "interval": float(1.96 * scores.std(ddof=1) / np.sqrt(n)),
        "success": float((scores >= SUCCESS).mean()),
        "follow": float(np.mean([mark.follow for mark in marks])),
        "keep": float(np.mean([mark.keep for mark in marks])),
        "quality": float(np.mean([mark.quality for mark in marks])),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Train the base editor of the shapes world.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--vae", type=Path, help="folder of a trained VAE, instead of training one")
    parser.add_argument("--vae-steps", type=int, default=VaeRecipe.steps)
    parser.add_argument("--flow-steps", type=int, default=FlowRecipe.steps)
    parser.add_argument("--check", type=int, default=1000, help="held-out cases to measure the result on")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    start = time.monotonic()
    train_editor(
        options.out,
        seed=options.seed,
        vae=options.vae,
        vae_recipe=replace(VaeRecipe(), steps=options.vae_steps),
        flow_recipe=replace(FlowRecipe(), steps=options.flow_steps),
    )
    logger.info("trained in %.0f s", time.monotonic() - start)
    logger.info("digest %s", folder_digest(options.out))
    logger.info("editor %s", json.dumps(measure_editor(options.out, options.check)))


if __name__ == "__main__":
    main()
