"""Train and evaluate the base editor of the shapes dataset: ``python -m editr1.shapes.train_editor --out DIR``.

The VAE is trained first, then the flow transformer with its text encoders. The result is a FluxKontextPipeline folder
with bfloat16 weights. Training took about 19 minutes (1,121 s) on one CPU thread, while another training job was
running.
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
from editr1.shapes.cases import generate_cases
from editr1.shapes.editor_data import edit_rows, vae_images
from editr1.shapes.rendering import SIDE
from editr1.shapes.tiny_editor import T5_LENGTH, tiny_flux_kontext
from editr1.shapes.train_flow import FlowData, FlowRecipe, train_flow
from editr1.shapes.train_vae import VaeRecipe, decode_latents, encode_images, finetune_decoder, train_vae
from editr1.shapes.truth import as_pixels, read_images, true_scores
from editr1.verifier.model import folder_digest

logger = logging.getLogger(__name__)

SUCCESS = 9.0
"""Minimum ground-truth score (0 to 10) of a successful edit."""


def train_editor(
    out: Path,
    *,
    seed: int = 0,
    images: int = 24_000,
    cases: int = 24_000,
    vae_recipe: VaeRecipe | None = None,
    flow_recipe: FlowRecipe | None = None,
    vae: Path | None = None,
) -> None:
    """Train an editor, round its weights to bfloat16, and write its pipeline folder to ``out``.

    Args:
        out: folder to write. A newly trained VAE is saved before the training of the flow transformer starts.
        seed: random seed for the weights and the data.
        images: number of training images for the VAE.
        cases: number of training cases for the flow transformer.
        vae_recipe: settings of the training of the VAE.
        flow_recipe: settings of the training of the flow transformer.
        vae: folder of a trained VAE to use instead of training one.
    """
    pipeline = tiny_flux_kontext(seed)
    if vae is not None:
        pipeline.vae.load_state_dict(AutoencoderKL.from_pretrained(vae, torch_dtype=torch.float32).state_dict())
    else:
        recipe, training_images = vae_recipe or VaeRecipe(), vae_images(images, seed)
        train_vae(pipeline.vae, training_images, recipe, seed)
        finetune_decoder(pipeline.vae, training_images, recipe, offset_seed(seed, 1))
        pipeline.vae.save_pretrained(out / "vae")
    pipeline.vae.to(torch.bfloat16).to(torch.float32)
    logger.info("VAE metrics: %s", json.dumps(measure_vae(pipeline.vae)))
    rows = edit_rows(cases, seed)
    sources, perfect, faulty = (encode_images(pipeline.vae, part) for part in (rows.sources, rows.perfect, rows.faulty))
    data = FlowData(sources, perfect, faulty, rows.instructions)
    train_flow(pipeline, data, flow_recipe or FlowRecipe(), seed)
    pipeline.to(torch.bfloat16)
    pipeline.save_pretrained(out)


@torch.no_grad()
def measure_vae(vae: AutoencoderKL, n: int = 500) -> dict[str, float]:
    """Encode and decode ``n`` source images, and check whether the decoded images have the same content.

    Returns:
        ``parsed``: fraction of decoded images that are clean and have the same content as the source image. ``same``:
        fraction of decoded images that have the same content as the source image. ``residual``: root mean square
        distance of a cell from the nearest template, for the worst cell of each decoded image, averaged over the images.
    """
    sources = np.stack([as_pixels(case.source) for case in generate_cases(n, 0, "vae-check")])
    decoded = decode_latents(vae, encode_images(vae, torch.from_numpy(sources).permute(0, 3, 1, 2)))
    before, after = read_images(sources), read_images(decoded.permute(0, 2, 3, 1).numpy())
    same = (before.cells == after.cells).all(1) & (before.backgrounds == after.backgrounds)
    return {
        "parsed": float((same & after.clean).mean()),
        "same": float(same.mean()),
        "residual": float(after.residuals.max(1).mean()),
    }


def measure_editor(
    folder: Path, n: int = 1000, *, steps: int = 8, seed: int = 0, batch_size: int = 100
) -> dict[str, float]:
    """Edit ``n`` cases that were not used for training, and compute the ground-truth scores of the edits.

    Returns:
        ``score``: mean score in [0, 10]. ``interval``: half the width of the 95% confidence interval of ``score``.
        ``success``: fraction of edits with a score of at least 9. ``follow``, ``keep``, ``quality``: fraction of fulfilled
        principles of this category, averaged over the edits.
    """
    pipeline = FluxKontextPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    cases = generate_cases(n, seed, "editor-check")
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
    results = true_scores(sources, instructions, np.stack(edited))
    scores = np.asarray([result.score for result in results])
    return {
        "score": float(scores.mean()),
        "interval": float(1.96 * scores.std(ddof=1) / np.sqrt(n)),
        "success": float((scores >= SUCCESS).mean()),
        "follow": float(np.mean([result.follow for result in results])),
        "keep": float(np.mean([result.keep for result in results])),
        "quality": float(np.mean([result.quality for result in results])),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and train and measure the editor."""
    parser = argparse.ArgumentParser(description="Train the base editor of the shapes dataset.")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to which the pipeline of the trained editor is written"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed for the weights and the data (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="number of CPU threads (default: %(default)s)")
    parser.add_argument("--vae", type=Path, help="folder of a trained VAE to use instead of training one")
    parser.add_argument(
        "--vae-steps",
        type=int,
        default=VaeRecipe.steps,
        help="number of optimizer steps for the VAE (default: %(default)s)",
    )
    parser.add_argument(
        "--flow-steps",
        type=int,
        default=FlowRecipe.steps,
        help="number of optimizer steps for the flow transformer (default: %(default)s)",
    )
    parser.add_argument(
        "--check",
        type=int,
        default=1000,
        help="number of cases on which the trained editor is evaluated (default: %(default)s)",
    )
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
    logger.info("Training took %.0f s", time.monotonic() - start)
    logger.info("Digest: %s", folder_digest(options.out))
    logger.info("Editor metrics: %s", json.dumps(measure_editor(options.out, options.check)))


if __name__ == "__main__":
    main()
