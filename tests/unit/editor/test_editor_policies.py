from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxKontextPipeline, QwenImageEditPipeline
from PIL import Image

from editr1.editor.policies import EditorPolicy, load_policy, working_size
from editr1.editor.rollout import Draw, SdeSettings, sample_chunk, sample_ode
from editr1.editor.sample import edit_images
from editr1.editor.sde import log_prob, transition
from editr1.seeding import sample_seed

TOLERANCE = 1e-5
"""Largest difference of latents (of size about 3) from diffusers' own pipeline; measured 1e-6."""

Pictures = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def flux(flux_folder: Path) -> EditorPolicy:
    return load_policy(str(flux_folder))


@pytest.fixture(scope="module")
def qwen(qwen_folder: Path) -> EditorPolicy:
    return load_policy(str(qwen_folder), guidance=4.0)


def run_flux(policy: EditorPolicy, image: Image.Image, prompt: str, seed: int, **more: Any) -> Any:
    return policy.pipeline(
        image=image,
        prompt=prompt,
        num_inference_steps=6,
        generator=torch.Generator().manual_seed(seed),
        max_sequence_length=policy.text_length,  # type: ignore[attr-defined]
        _auto_resize=False,
        **more,
    ).images


def test_flux_sampling_without_noise_is_the_pipeline_s(flux: EditorPolicy, make_picture: Pictures) -> None:
    images, prompts = [make_picture(1), make_picture(2)], ["make it red", "remove the circle"]
    size = flux.working_size(images[0], 32)
    ours = sample_ode(flux, flux.encode(images, prompts, size, size), [0, 1], [5, 6], 6)
    for i in range(2):
        theirs = run_flux(flux, images[i], prompts[i], 5 + i, height=32, width=32, max_area=1024, output_type="latent")
        assert float((theirs[0] - ours[i]).abs().max()) < TOLERANCE


def test_a_stochastic_window_of_noise_zero_is_still_the_pipeline_s(flux: EditorPolicy, make_picture: Pictures) -> None:
    size = flux.working_size(make_picture(1), 32)
    condition = flux.encode([make_picture(1)], ["make it red"], size, size)
    move = SdeSettings(steps=6, kind="flow", noise_level=0.0, window=2, log_prob_form="public")
    chunk = sample_chunk(flux, condition, [Draw(0, 0, 1, 7)], move)
    assert torch.allclose(chunk.final, sample_ode(flux, condition, [0], [7], 6), atol=TOLERANCE)


def test_flux_pictures_of_another_shape_are_the_pipeline_s_too(flux: EditorPolicy, make_picture: Pictures) -> None:
    image = make_picture(3, 64, 48)
    ours = edit_images(flux, [image], ["make it red"], steps=6, seed=5)[0]
    theirs = run_flux(flux, image, "make it red", 5, height=48, width=64, max_area=64 * 48)[0]
    assert ours.size == theirs.size == (64, 48)
    assert max(abs(a - b) for a, b in zip(ours.tobytes(), theirs.tobytes(), strict=True)) <= 1


def test_qwen_sampling_without_noise_is_the_pipeline_s(qwen: EditorPolicy, make_picture: Pictures) -> None:
    # the plain pipeline always takes a reference of about one megapixel
    image = make_picture(1)
    condition = qwen.encode([image], ["make it red"], qwen.working_size(image, 32), qwen.working_size(image, 1024))
    ours = sample_ode(qwen, condition, [0], [5], 2)
    theirs = qwen.pipeline(
        image=image,
        prompt="make it red",
        negative_prompt=" ",
        true_cfg_scale=4.0,
        height=32,
        width=32,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    assert float((theirs - ours).abs().max()) < TOLERANCE


def test_qwen_text_of_different_length_is_padded_without_effect(qwen: EditorPolicy, make_picture: Pictures) -> None:
    images, prompts = [make_picture(1), make_picture(2)], ["red", "make everything in the picture blue"]
    size = qwen.working_size(images[0], 32)
    both = sample_ode(qwen, qwen.encode(images, prompts, size, size), [0, 1], [5, 6], 2)
    for i in range(2):
        alone = sample_ode(qwen, qwen.encode(images[i : i + 1], prompts[i : i + 1], size, size), [0], [5 + i], 2)
        assert torch.allclose(both[i], alone[0], atol=TOLERANCE)


def test_qwen_decoding_is_the_pipeline_s(qwen: EditorPolicy, make_picture: Pictures) -> None:
    image = make_picture(1)
    latents = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(0)).to(qwen.device)
    ours = qwen.decode(latents, qwen.working_size(image, 32))[0]
    theirs = qwen.pipeline(
        image=image, prompt="red", height=32, width=32, num_inference_steps=1, true_cfg_scale=1.0, latents=latents,
        callback_on_step_end=lambda *_: {"latents": latents},
    ).images[0]  # fmt: skip
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("kind", ["flow", "cps"])
@pytest.mark.parametrize("storage", [torch.float32, torch.bfloat16])
def test_replay_gives_a_ratio_of_one(
    flux: EditorPolicy, make_picture: Pictures, kind: str, storage: torch.dtype
) -> None:
    images = [make_picture(1), make_picture(2)]
    size = flux.working_size(images[0], 32)
    condition = flux.encode(images, ["make it red", "blue"], size, size)
    settings = SdeSettings(6, kind, 0.8, 3, "gaussian", storage)  # type: ignore[arg-type]
    draws = [Draw(case, case, case + 1, sample_seed(0, 0, case, s)) for case in (0, 1) for s in range(4)]
    chunk = sample_chunk(flux, condition, draws, settings)
    rows = torch.tensor([0, 2, 7])  # another batch than the sampler's
    for k in range(3):
        before, after, sigma, sigma_next = (value[rows] for value in chunk.step(k))
        v = flux.velocity(before, sigma, condition.take(chunk.cases[rows]))
        move = transition(settings.kind, before, v, sigma, sigma_next, 0.8)
        ratio = torch.exp(log_prob(after, move.mean, move.std) - chunk.log_probs[rows, k])
        assert float((ratio - 1).abs().max()) < 1e-6


def test_latents_kept_in_bf16_without_rounding_the_sampler_would_move_the_ratio(
    flux: EditorPolicy, make_picture: Pictures
) -> None:
    size = flux.working_size(make_picture(1), 32)
    condition = flux.encode([make_picture(1)], ["make it red"], size, size)
    chunk = sample_chunk(flux, condition, [Draw(0, 0, 3, s) for s in range(4)], SdeSettings(6, "flow", 0.8, 2))
    before, after, sigma, sigma_next = chunk.step(1)
    v = flux.velocity(before.bfloat16().float(), sigma, condition.take(chunk.cases))
    move = transition("flow", before.bfloat16().float(), v, sigma, sigma_next, 0.8)
    drift = log_prob(after.bfloat16().float(), move.mean, move.std) - chunk.log_probs[:, 1]
    assert float(drift.abs().max()) > 1e-6


def test_samples_do_not_depend_on_the_batch(flux: EditorPolicy, make_picture: Pictures) -> None:
    images, prompts = [make_picture(i) for i in range(3)], ["red", "blue", "green"]
    together = edit_images(flux, images, prompts, steps=4, seed=3, batch_size=3)
    apart = edit_images(flux, images, prompts, steps=4, seed=3, batch_size=1)
    for a, b in zip(together, apart, strict=True):
        assert max(abs(x - y) for x, y in zip(a.tobytes(), b.tobytes(), strict=True)) <= 1


def test_photographs_of_any_size_and_mode_are_edited_at_the_resolution(
    flux: EditorPolicy, make_picture: Pictures
) -> None:
    images = [make_picture(1, 640, 427), make_picture(2, 100, 301).convert("L"), make_picture(3).convert("RGBA")]
    edits = edit_images(flux, images, ["a", "b", "c"], steps=1, size=64)
    assert [edit.size for edit in edits] == [(80, 48), (32, 112), (64, 64)]
    assert all(edit.mode == "RGB" for edit in edits)


@pytest.mark.parametrize(
    ("width", "height", "resolution", "expected"),
    [
        (32, 32, 32, (32, 32)),
        (1000, 500, 512, (368, 720)),
        (4000, 3000, None, (880, 1168)),
        (100, 50, None, (48, 96)),
        (10000, 3, 512, (16, 16384)),
        (5, 5, None, (16, 16)),
    ],
)
def test_working_size_keeps_area_and_aspect(
    width: int, height: int, resolution: int | None, expected: tuple[int, int]
) -> None:
    size = working_size(width, height, resolution, 16)
    assert (size.height, size.width) == expected


def test_the_kontext_reference_is_not_grown_to_a_megapixel(flux: EditorPolicy, make_picture: Pictures) -> None:
    size = flux.working_size(make_picture(1), 32)
    assert flux.encode([make_picture(1)], ["red"], size, size).rows["reference"].shape == (1, 4, 16)


def test_sigmas_follow_a_dynamically_shifted_scheduler(flux: EditorPolicy) -> None:
    from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift

    plain = flux.pipeline.scheduler
    shifted = type(plain).from_config(plain.config, use_dynamic_shifting=True, shift_terminal=0.02)
    flux.pipeline.scheduler = shifted
    try:
        size = working_size(512, 512, 512, 16)
        sigmas = flux.sigmas(4, size)
        reference = type(plain).from_config(shifted.config)
        reference.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=calculate_shift(1024))
        assert torch.equal(sigmas, reference.sigmas)
        assert float(sigmas[0]) == 1.0
    finally:
        flux.pipeline.scheduler = plain


def test_an_unknown_pipeline_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ValueError, match="StableDiffusionPipeline"):
        load_policy(str(tmp_path))


def test_sources_and_instructions_must_match(flux: EditorPolicy, make_picture: Pictures) -> None:
    with pytest.raises(ValueError, match="1 sources but 2"):
        edit_images(flux, [make_picture(1)], ["a", "b"], steps=1)


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (FluxKontextPipeline, "_pack_latents", ["latents", "batch_size", "num_channels_latents", "height", "width"]),
        (QwenImageEditPipeline, "_pack_latents", ["latents", "batch_size", "num_channels_latents", "height", "width"]),
        (FluxKontextPipeline, "_unpack_latents", ["latents", "height", "width", "vae_scale_factor"]),
        (QwenImageEditPipeline, "_unpack_latents", ["latents", "height", "width", "vae_scale_factor"]),
        (
            FluxKontextPipeline,
            "prepare_latents",
            [
                "self",
                "image",
                "batch_size",
                "num_channels_latents",
                "height",
                "width",
                "dtype",
                "device",
                "generator",
                "latents",
            ],
        ),
        (
            QwenImageEditPipeline,
            "prepare_latents",
            [
                "self",
                "image",
                "batch_size",
                "num_channels_latents",
                "height",
                "width",
                "dtype",
                "device",
                "generator",
                "latents",
            ],
        ),
    ],
)
def test_methods_that_diffusers_does_not_promise_are_as_they_were(owner: Any, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_a_saved_editor_does_not_depend_on_where_it_was_loaded_from(flux_folder: Path, tmp_path: Path) -> None:
    saved = []
    for place in ("here", "there"):
        shutil.copytree(flux_folder, tmp_path / place)
        load_policy(str(tmp_path / place)).save(tmp_path / f"{place}-out")
        files = sorted((tmp_path / f"{place}-out").rglob("*.json"))
        saved.append({path.relative_to(tmp_path / f"{place}-out"): path.read_bytes() for path in files})
    assert saved[0] == saved[1]
