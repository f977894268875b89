"""Small editors with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FluxKontextPipeline, QwenImageEditPipeline
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer

from editr1.shapes.tiny_editor import (
    T5_LENGTH,
    build_tiny_flux_kontext,
    build_tiny_qwen_image_edit,
    tiny_flux_kontext,
)
from editr1.shapes.vocabulary import phrases
from editr1.verifier.model import PictureProcessor

TEXTS = [
    "make the top-left red square yellow",
    "Replace the café's sign with 漢字 and a 😀, please; keep\tthe rest.",
    "  two  spaces, a line\nbreak, \x00 and ÅÄÖ ",
]


@pytest.fixture(scope="module")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_flux_kontext(tmp_path_factory.mktemp("editors") / "flux", 0)


@pytest.fixture(scope="module")
def flux(flux_folder: Path) -> FluxKontextPipeline:
    pipeline = FluxKontextPipeline.from_pretrained(flux_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_qwen_image_edit(tmp_path_factory.mktemp("editors") / "qwen", 0)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (96, 64), (64, 48)])
def test_flux_folder_loads_with_diffusers_and_edits_images_of_any_size(
    flux: FluxKontextPipeline, width: int, height: int
) -> None:
    edited = flux(
        image=[Image.new("RGB", (width, height), "red")] * 2,
        prompt=TEXTS[:2],
        width=width,
        height=height,
        max_area=width * height,
        num_inference_steps=2,
        max_sequence_length=T5_LENGTH,
        _auto_resize=False,
    ).images
    assert [image.size for image in edited] == [(width, height)] * 2


def test_flux_token_represents_one_cell_and_time_is_linear(flux: FluxKontextPipeline) -> None:
    with torch.no_grad():
        latents = flux.vae.encode(torch.zeros(1, 3, 32, 32)).latent_dist.mode()
    assert latents.shape == (1, 4, 4, 4)
    assert flux.transformer.config.in_channels == 16
    assert not flux.transformer.config.guidance_embeds
    assert (flux.vae.config.scaling_factor, flux.vae.config.shift_factor) == (1.0, 0.0)
    flux.scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=0.9)
    assert flux.scheduler.sigmas.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_weights_depend_on_the_seed_and_the_global_random_state_is_unchanged() -> None:
    before = torch.random.get_rng_state()
    first, second, third = (tiny_flux_kontext(seed).transformer.state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, third[name]) for name, value in first.items())


@pytest.mark.parametrize("text", TEXTS)
def test_t5_tokenizer_is_lossless(flux: FluxKontextPipeline, text: str) -> None:
    ids = flux.tokenizer_2(text).input_ids
    assert flux.tokenizer_2.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("text", TEXTS)
def test_clip_tokenizer_has_no_unknown_bytes(flux: FluxKontextPipeline, text: str) -> None:
    body = flux.tokenizer(text).input_ids[1:-1]
    assert body
    assert flux.tokenizer.unk_token_id not in body


def test_phrases_of_the_dataset_are_single_tokens_after_loading(flux: FluxKontextPipeline) -> None:
    for phrase in phrases():
        assert len(flux.tokenizer(phrase).input_ids) == 3, phrase
        assert len(flux.tokenizer_2(phrase).input_ids) == 2, phrase


def test_text_encoders_distinguish_instructions(flux: FluxKontextPipeline) -> None:
    with torch.no_grad():
        prompt, pooled, _ = flux.encode_prompt(
            ["remove the top-left red square", "remove the top-left red circle"], None, max_sequence_length=T5_LENGTH
        )
    assert prompt.shape == (2, T5_LENGTH, 64)
    assert pooled.shape == (2, 48)
    assert not torch.allclose(prompt[0], prompt[1])
    assert not torch.allclose(pooled[0], pooled[1])


def test_qwen_folder_has_the_layout_of_the_published_model(qwen_folder: Path) -> None:
    index = json.loads((qwen_folder / "model_index.json").read_text())
    assert index["_class_name"] == "QwenImageEditPipeline"
    assert index["processor"] == ["transformers", "Qwen2VLProcessor"]
    settings = json.loads((qwen_folder / "processor" / "preprocessor_config.json").read_text())
    assert settings["image_processor_type"] == "Qwen2VLImageProcessor"


def test_qwen_folder_edits_an_image(qwen_folder: Path) -> None:
    folder = qwen_folder / "processor"
    pipeline = QwenImageEditPipeline.from_pretrained(
        qwen_folder,
        processor=PictureProcessor(AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)),
    )
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.tokenizer.decode(pipeline.tokenizer(TEXTS[1]).input_ids) == TEXTS[1]
    edited = pipeline(
        image=Image.new("RGB", (96, 64), "red"), prompt=TEXTS[1], width=96, height=64, num_inference_steps=1
    ).images[0]
    assert edited.size == (96, 64)
