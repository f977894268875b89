"""Policies and sampling against the pipelines of diffusers."""

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

from editr1.data.rules import size_fault
from editr1.editor.policies import EditorPolicy, load_policy, working_size
from editr1.editor.rollout import SdeSettings, sample_ode, sample_trajectories
from editr1.editor.sample import EditSettings, edit_images
from editr1.editor.sde import log_prob, transition
from editr1.editor.trajectory import SampleSpec
from editr1.seeding import sample_seed

TOLERANCE = 1e-5
"""Largest allowed difference between our latents (magnitude about 3) and those of diffusers. We measured 1e-6."""

MakeImage = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def flux(flux_folder: Path) -> EditorPolicy:
    return load_policy(str(flux_folder))


@pytest.fixture(scope="module")
def qwen(qwen_folder: Path) -> EditorPolicy:
    return load_policy(str(qwen_folder), guidance=4.0)


def spec(*, sample_id: int = 0, noise_seed: int, window_start: int) -> SampleSpec:
    return SampleSpec(sample_id, 0, 0, window_start, noise_seed)


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


def test_flux_ode_sampling_matches_the_pipeline(flux: EditorPolicy, make_image: MakeImage) -> None:
    images, prompts = [make_image(1), make_image(2)], ["make it red", "remove the circle"]
    size = flux.working_size(images[0], 32)
    ours = sample_ode(flux, flux.encode(images, prompts, size, size), [0, 1], [5, 6], 6)
    for i in range(2):
        theirs = run_flux(flux, images[i], prompts[i], 5 + i, height=32, width=32, max_area=1024, output_type="latent")
        assert float((theirs[0] - ours[i]).abs().max()) < TOLERANCE


def test_stochastic_window_at_noise_zero_matches_ode_sampling(flux: EditorPolicy, make_image: MakeImage) -> None:
    size = flux.working_size(make_image(1), 32)
    condition = flux.encode([make_image(1)], ["make it red"], size, size)
    settings = SdeSettings(num_inference_steps=6, kind="flow", noise_level=0.0, window_size=2, log_prob_form="public")
    batch = sample_trajectories(flux, condition, [spec(noise_seed=7, window_start=1)], settings)
    assert torch.allclose(batch.final_latents, sample_ode(flux, condition, [0], [7], 6), atol=TOLERANCE)


def test_flux_edit_of_another_aspect_ratio_matches_the_pipeline(flux: EditorPolicy, make_image: MakeImage) -> None:
    image = make_image(3, 64, 48)
    ours = edit_images(flux, [image], ["make it red"], EditSettings(num_inference_steps=6), seed=5)[0]
    theirs = run_flux(flux, image, "make it red", 5, height=48, width=64, max_area=64 * 48)[0]
    assert ours.size == theirs.size == (64, 48)
    assert max(abs(a - b) for a, b in zip(ours.tobytes(), theirs.tobytes(), strict=True)) <= 1


def test_qwen_ode_sampling_matches_the_pipeline(qwen: EditorPolicy, make_image: MakeImage) -> None:
    # The diffusers pipeline always resizes the reference to about 1 megapixel.
    image = make_image(1)
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


def test_qwen_text_padding_does_not_change_samples(qwen: EditorPolicy, make_image: MakeImage) -> None:
    images, prompts = [make_image(1), make_image(2)], ["red", "make everything in the picture blue"]
    size = qwen.working_size(images[0], 32)
    both = sample_ode(qwen, qwen.encode(images, prompts, size, size), [0, 1], [5, 6], 2)
    for i in range(2):
        single = sample_ode(qwen, qwen.encode(images[i : i + 1], prompts[i : i + 1], size, size), [0], [5 + i], 2)
        assert torch.allclose(both[i], single[0], atol=TOLERANCE)


def test_qwen_decoding_matches_the_pipeline(qwen: EditorPolicy, make_image: MakeImage) -> None:
    image = make_image(1)
    latents = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(0)).to(qwen.device)
    ours = qwen.decode(latents, qwen.working_size(image, 32))[0]
    theirs = qwen.pipeline(
        image=image, prompt="red", height=32, width=32, num_inference_steps=1, true_cfg_scale=1.0, latents=latents,
        callback_on_step_end=lambda *_: {"latents": latents},
    ).images[0]  # fmt: skip
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("kind", ["flow", "cps"])
@pytest.mark.parametrize("storage", [torch.float32, torch.bfloat16])
def test_replayed_steps_have_ratio_one(
    flux: EditorPolicy, make_image: MakeImage, kind: str, storage: torch.dtype
) -> None:
    images = [make_image(1), make_image(2)]
    size = flux.working_size(images[0], 32)
    condition = flux.encode(images, ["make it red", "blue"], size, size)
    settings = SdeSettings(6, kind, 0.8, 3, "gaussian", storage)  # type: ignore[arg-type]
    specs = [SampleSpec(4 * row + s, row, row, row + 1, sample_seed(0, 0, row, s)) for row in (0, 1) for s in range(4)]
    batch = sample_trajectories(flux, condition, specs, settings)
    rows = torch.tensor([0, 2, 7])  # The batch composition differs from that during sampling.
    for k in range(3):
        before, after, sigma, sigma_next = (value[rows] for value in batch.step(k))
        v = flux.velocity(before, sigma, condition.take(batch.condition_rows[rows]))
        move = transition(settings.kind, before, v, sigma, sigma_next, 0.8)
        ratio = torch.exp(log_prob(after, move.mean, move.std) - batch.log_probs[rows, k])
        assert float((ratio - 1).abs().max()) < 1e-6


def test_storing_bf16_latents_without_rounding_changes_the_ratio(flux: EditorPolicy, make_image: MakeImage) -> None:
    size = flux.working_size(make_image(1), 32)
    condition = flux.encode([make_image(1)], ["make it red"], size, size)
    specs = [spec(sample_id=s, noise_seed=s, window_start=3) for s in range(4)]
    batch = sample_trajectories(flux, condition, specs, SdeSettings(6, "flow", 0.8, 2))
    before, after, sigma, sigma_next = batch.step(1)
    v = flux.velocity(before.bfloat16().float(), sigma, condition.take(batch.condition_rows))
    move = transition("flow", before.bfloat16().float(), v, sigma, sigma_next, 0.8)
    drift = log_prob(after.bfloat16().float(), move.mean, move.std) - batch.log_probs[:, 1]
    assert float(drift.abs().max()) > 1e-6


def test_samples_do_not_depend_on_the_batch_size(flux: EditorPolicy, make_image: MakeImage) -> None:
    images, prompts = [make_image(i) for i in range(3)], ["red", "blue", "green"]
    together = edit_images(flux, images, prompts, EditSettings(num_inference_steps=4, batch_size=3), seed=3)
    apart = edit_images(flux, images, prompts, EditSettings(num_inference_steps=4, batch_size=1), seed=3)
    for a, b in zip(together, apart, strict=True):
        assert max(abs(x - y) for x, y in zip(a.tobytes(), b.tobytes(), strict=True)) <= 1


def test_images_of_any_size_and_mode_are_edited_at_the_resolution(flux: EditorPolicy, make_image: MakeImage) -> None:
    images = [make_image(1, 640, 427), make_image(2, 100, 301).convert("L"), make_image(3).convert("RGBA")]
    edits = edit_images(flux, images, ["a", "b", "c"], EditSettings(num_inference_steps=1, resolution=64))
    assert [edit.size for edit in edits] == [(80, 48), (32, 112), (64, 64)]
    assert all(edit.mode == "RGB" for edit in edits)


@pytest.mark.parametrize(
    ("width", "height", "resolution", "expected"),
    [
        (32, 32, 32, (32, 32)),
        (1000, 500, 512, (368, 720)),
        (4000, 3000, None, (880, 1168)),
        (100, 50, None, (48, 96)),
        (10000, 3, 512, (16, 3200)),
        (5, 5, None, (16, 16)),
    ],
)
def test_working_size_keeps_area_and_aspect_ratio(
    width: int, height: int, resolution: int | None, expected: tuple[int, int]
) -> None:
    size = working_size(width, height, resolution, 16)
    assert (size.height, size.width) == expected


@pytest.mark.parametrize(("width", "height"), [(3990, 20), (20, 3990), (6000, 31), (200, 1)])
@pytest.mark.parametrize("resolution", [None, 64, 512, 1024])
def test_edit_of_a_valid_source_is_not_too_slim_for_a_verifier(width: int, height: int, resolution: int | None) -> None:
    assert size_fault(width, height) is None
    size = working_size(width, height, resolution, 16)
    assert size_fault(size.width, size.height) is None
    assert size.width % 16 == size.height % 16 == 0


def test_kontext_reference_is_not_upscaled_to_one_megapixel(flux: EditorPolicy, make_image: MakeImage) -> None:
    size = flux.working_size(make_image(1), 32)
    assert flux.encode([make_image(1)], ["red"], size, size).rows["reference"].shape == (1, 4, 16)


def test_sigmas_follow_a_scheduler_with_dynamic_shifting(flux: EditorPolicy) -> None:
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


def test_unknown_pipeline_class_is_rejected_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ValueError, match="StableDiffusionPipeline"):
        load_policy(str(tmp_path))


def test_sources_and_instructions_must_have_equal_lengths(flux: EditorPolicy, make_image: MakeImage) -> None:
    with pytest.raises(ValueError, match="1 sources but 2"):
        edit_images(flux, [make_image(1)], ["a", "b"], EditSettings(num_inference_steps=1))


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
def test_private_diffusers_methods_have_the_expected_parameters(owner: Any, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_saved_editor_does_not_depend_on_the_path_it_was_loaded_from(flux_folder: Path, tmp_path: Path) -> None:
    saved = []
    for place in ("here", "there"):
        shutil.copytree(flux_folder, tmp_path / place)
        load_policy(str(tmp_path / place)).save(tmp_path / f"{place}-out")
        files = sorted((tmp_path / f"{place}-out").rglob("*.json"))
        saved.append({path.relative_to(tmp_path / f"{place}-out"): path.read_bytes() for path in files})
    assert saved[0] == saved[1]


@pytest.mark.parametrize("folder", ["flux_folder", "qwen_folder"])
def test_saved_editor_does_not_depend_on_the_prompts_that_were_encoded(
    folder: str, tmp_path: Path, make_image: MakeImage, request: pytest.FixtureRequest
) -> None:
    policy = load_policy(str(request.getfixturevalue(folder)))

    def saved(name: str) -> dict[Path, bytes]:
        policy.save(tmp_path / name)
        return {file.relative_to(tmp_path / name): file.read_bytes() for file in (tmp_path / name).rglob("*.json")}

    fresh = saved("fresh")
    size = policy.working_size(make_image(1), 32)
    policy.encode([make_image(1), make_image(2)], ["make it red", "remove"], size, size)
    assert saved("used") == fresh
