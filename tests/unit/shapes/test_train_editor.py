"""Training of the base editor, and the shipped checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FluxKontextPipeline

from editr1.shapes.editor_data import FAULT_WEIGHTS, edit_rows, vae_images
from editr1.shapes.tiny_editor import tiny_flux_kontext
from editr1.shapes.train_editor import measure_editor, measure_vae, train_editor
from editr1.shapes.train_flow import FlowData, FlowRecipe, pack, train_flow
from editr1.shapes.train_vae import VaeRecipe, bake_normalisation, decode_latents, encode_images
from editr1.shapes.truth import true_scores

ASSET = Path(__file__).parents[3] / "editr1" / "shapes" / "assets" / "editor"


def test_perfect_and_faulty_targets_have_matching_scores() -> None:
    rows = edit_rows(200, seed=1)
    sources, perfect, faulty = (part.permute(0, 2, 3, 1).numpy() for part in (rows.sources, rows.perfect, rows.faulty))
    assert all(result.score == 10 for result in true_scores(sources, rows.instructions, perfect))
    scores = [result.score for result in true_scores(sources, rows.instructions, faulty)]
    assert sum(score < 10 for score in scores) / len(scores) > 0.95
    assert sum(FAULT_WEIGHTS.values()) == pytest.approx(1)


def test_first_rows_do_not_depend_on_the_number_of_rows() -> None:
    assert torch.equal(vae_images(3, seed=5), vae_images(8, seed=5)[:3])
    assert edit_rows(3, seed=5).instructions == edit_rows(8, seed=5).instructions[:3]


def test_baked_normalisation_gives_latents_mean_0_and_variance_1() -> None:
    vae = tiny_flux_kontext(0).vae
    images = vae_images(64, seed=0)
    bake_normalisation(vae, images)
    latents = encode_images(vae, images)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4
    assert latents.std((0, 2, 3)) == pytest.approx(torch.ones(4), abs=1e-3)
    assert decode_latents(vae, latents).shape == images.shape


def test_latents_are_packed_as_in_the_diffusers_pipeline() -> None:
    latents = torch.randn(2, 4, 6, 8)
    assert torch.equal(pack(latents), FluxKontextPipeline._pack_latents(latents, 2, 4, 6, 8))


def test_instruction_with_too_many_tokens_is_rejected() -> None:
    pipeline = tiny_flux_kontext(0)
    latents = torch.zeros(1, 4, 4, 4)
    with pytest.raises(ValueError, match="tokens"):
        train_flow(pipeline, FlowData(latents, latents, latents, ["a long sentence in bytes"]), FlowRecipe(steps=1), 0)


def test_training_writes_a_folder_that_diffusers_loads(tmp_path: Path) -> None:
    train_editor(
        tmp_path / "editor",
        images=64,
        cases=32,
        vae_recipe=replace(VaeRecipe(), steps=2, decoder_steps=2, batch_size=8),
        flow_recipe=replace(FlowRecipe(), steps=2, batch_size=8),
    )
    measured = measure_editor(tmp_path / "editor", 8, steps=2)
    assert 0 <= measured["score"] <= 10


def test_shipped_editor_is_small() -> None:
    assert sum(path.stat().st_size for path in ASSET.rglob("*") if path.is_file()) < 5.5e6


def test_shipped_vae_preserves_the_ground_truth() -> None:
    pipeline = FluxKontextPipeline.from_pretrained(ASSET, torch_dtype=torch.float32)
    assert measure_vae(pipeline.vae, 300)["parsed"] >= 0.98


def test_shipped_editor_follows_some_instructions_and_can_improve() -> None:
    measured = measure_editor(ASSET, 100)
    assert 5.5 < measured["score"] < 7.7
    assert 0.1 < measured["success"] < 0.6
