"""Repeated pictures are prepared and encoded once, with the values of the plain library."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from editr1.data.types import Category, Principle
from editr1.verifier.chat import build_chat
from editr1.verifier.image_dedup import encode_pictures_once, process_pictures_once
from editr1.verifier.model import load_verifier, save_processor

ASKED = (Principle(question="kept?", category=Category.KEEP),)


def noise(rng: random.Random, width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), rng.randbytes(3 * width * height))


def test_logits_and_gradients_equal_the_plain_librarys(tiny: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    a, b, c = noise(rng, 32, 32), noise(rng, 48, 32), noise(rng, 200, 90)
    pairs = [(a, b), (a, b.copy()), (a, c), (c, a), (b, b)]
    results = []
    for once in (False, True):
        model, processor, template = load_verifier(tiny)
        if once:
            process_pictures_once(processor)
            encode_pictures_once(model)
        chats = [build_chat(template, source, edited, "x", ASKED) for source, edited in pairs]
        texts = [processor.apply_chat_template(chat.messages, tokenize=False) for chat in chats]
        batch = processor(text=texts, images=[chat.images for chat in chats], padding=True, return_tensors="pt")
        encoded: list[int] = []
        model.model.visual.patch_embed.register_forward_hook(lambda _m, _i, out, seen=encoded: seen.append(len(out)))
        output = model(**batch, labels=batch["input_ids"])
        output.loss.backward()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        results.append((batch, output.logits.detach(), gradients, encoded))
    plain, repeated = results
    for name in plain[0]:
        assert torch.equal(plain[0][name], repeated[0][name]), name
    assert torch.allclose(plain[1], repeated[1], atol=1e-5)
    assert plain[2].keys() == repeated[2].keys()
    for name, gradient in plain[2].items():
        assert torch.allclose(gradient, repeated[2][name], atol=1e-5), name
    assert repeated[3][0] < plain[3][0] / 2


def test_a_processor_that_saves_work_is_saved_as_the_librarys(tiny: Path, tmp_path: Path) -> None:
    _, processor, _ = load_verifier(tiny)
    process_pictures_once(processor)
    save_processor(processor, tmp_path)
    assert '"Qwen2VLImageProcessor"' in (tmp_path / "preprocessor_config.json").read_text()
    with pytest.raises(TypeError):
        processor.image_processor.preprocess()
