"""Repeated images are processed and encoded once, with the same results as without deduplication."""

from __future__ import annotations

import copy
import inspect
import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import ImageProcessingMixin, ProcessorMixin, Qwen2_5_VLModel

from editr1.data.types import Category, Principle
from editr1.verifier.chat import build_chat
from editr1.verifier.image_dedup import deduplicate_image_encoding, deduplicate_image_processing
from editr1.verifier.model import load_verifier, save_verifier

PRINCIPLES = (Principle(question="kept?", category=Category.KEEP),)


def noise(rng: random.Random, width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), rng.randbytes(3 * width * height))


def test_deduplication_does_not_change_logits_or_gradients(tiny: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    a, b, c = noise(rng, 32, 32), noise(rng, 48, 32), noise(rng, 200, 90)
    pairs = [(a, b), (a, b.copy()), (a, c), (c, a), (b, b)]
    results = []
    for deduplicate in (False, True):
        model, processor, template = load_verifier(tiny)
        if deduplicate:
            deduplicate_image_processing(processor)
            deduplicate_image_encoding(model)
        chats = [build_chat(template, source, edited, "x", PRINCIPLES) for source, edited in pairs]
        texts = [processor.apply_chat_template(chat.messages, tokenize=False) for chat in chats]
        batch = processor(text=texts, images=[chat.images for chat in chats], padding=True, return_tensors="pt")
        encoded: list[int] = []
        model.model.visual.patch_embed.register_forward_hook(lambda _m, _i, out, seen=encoded: seen.append(len(out)))
        output = model(**batch, labels=batch["input_ids"])
        output.loss.backward()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        results.append((batch, output.logits.detach(), gradients, encoded))
    plain, deduplicated = results
    for name in plain[0]:
        assert torch.equal(plain[0][name], deduplicated[0][name]), name
    assert torch.allclose(plain[1], deduplicated[1], atol=1e-5)
    assert plain[2].keys() == deduplicated[2].keys()
    for name, gradient in plain[2].items():
        assert torch.allclose(gradient, deduplicated[2][name], atol=1e-5), name
    assert deduplicated[3][0] < plain[3][0] / 2


def test_distinct_images_are_encoded_correctly_after_a_batch_with_repeats(tiny: Path) -> None:
    rng = random.Random(1)
    a, b = noise(rng, 32, 32), noise(rng, 32, 32)
    model, processor, _ = load_verifier(tiny)
    model.requires_grad_(False)
    inputs = [processor.image_processor(images=list(images), return_tensors="pt") for images in ((a, a), (a, b))]
    plain = [model.model.visual(item["pixel_values"], grid_thw=item["image_grid_thw"]) for item in inputs]
    deduplicate_image_encoding(model)
    for item, expected in zip(inputs, plain, strict=True):
        found = model.model.visual(item["pixel_values"], grid_thw=item["image_grid_thw"])
        assert torch.allclose(found.pooler_output, expected.pooler_output, atol=1e-6)


def test_deduplication_does_not_change_saved_folders_or_parameter_names(tiny: Path, tmp_path: Path) -> None:
    model, processor, template = load_verifier(tiny)
    names = list(model.state_dict())
    processor.save_pretrained(tmp_path / "plain-processor")  # as TRL does in a checkpoint
    save_verifier(model, processor, template, tmp_path / "plain")
    deduplicate_image_processing(processor)
    deduplicate_image_encoding(model)
    assert list(model.state_dict()) == names
    processor.save_pretrained(tmp_path / "deduplicated-processor")
    save_verifier(model, processor, template, tmp_path / "deduplicated")
    for first, second in (("plain", "deduplicated"), ("plain-processor", "deduplicated-processor")):
        files = {path.name: path.read_bytes() for path in (tmp_path / first).iterdir()}
        assert files == {path.name: path.read_bytes() for path in (tmp_path / second).iterdir()}


def test_copied_processor_still_delegates_to_the_original(tiny: Path) -> None:
    _, processor, _ = load_verifier(tiny)
    original = processor.image_processor
    deduplicate_image_processing(processor)
    wrapped = copy.deepcopy(processor).image_processor
    assert wrapped.merge_size == original.merge_size
    assert wrapped.get_number_of_image_patches(32, 64, {}) == original.get_number_of_image_patches(32, 64, {})
    with pytest.raises(AttributeError, match="no_such_attribute"):
        _ = wrapped.no_such_attribute


def test_transformers_calls_the_wrapped_components() -> None:
    assert "self.image_processor(images, **kwargs)" in inspect.getsource(ProcessorMixin._process_images)
    features = inspect.getsource(inspect.unwrap(Qwen2_5_VLModel.get_image_features))
    assert "self.visual(pixel_values, grid_thw=image_grid_thw, **kwargs)" in features
    assert "vision_outputs.pooler_output" in features
    assert "self.to_dict()" in inspect.getsource(ImageProcessingMixin.to_json_string)
