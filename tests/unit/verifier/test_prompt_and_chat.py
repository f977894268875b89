"""The prompt template, the chat messages of a case, and verifier folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from transformers import AutoModelForImageTextToText, AutoTokenizer

from editr1.data.types import Category, Principle
from editr1.shapes.tiny_verifier import build_tiny_verifier
from editr1.verifier.chat import build_chat
from editr1.verifier.model import folder_digest, load_verifier, save_verifier
from editr1.verifier.prompt import PROMPT_FILE, PromptTemplate

PRINCIPLES = (
    Principle(question="{red}?", category=Category.FOLLOW),
    Principle(question="kept?", category=Category.KEEP),
)


def test_chat_has_rules_source_request_and_edited_image_in_this_order() -> None:
    source, edited = Image.new("RGB", (8, 8)), Image.new("RGB", (9, 9))
    chat = build_chat(PromptTemplate(rules="Judge."), source, edited, "make {it} red", PRINCIPLES)
    assert [message["role"] for message in chat.messages] == ["system", "user"]
    assert chat.messages[0]["content"] == [{"type": "text", "text": "Judge."}]
    parts = chat.messages[1]["content"]
    assert [part["type"] for part in parts] == ["text", "image", "text", "text", "image"]
    assert "Instruction: make {it} red\n" in parts[2]["text"]
    assert "1. [Instruction Following] {red}?\n2. [Feature Preservation] kept?" in parts[2]["text"]
    assert chat.images == [source, edited]


def test_empty_rules_and_labels_are_omitted() -> None:
    template = PromptTemplate(rules="", source_label="", edited_label="")
    chat = build_chat(template, Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8)), "x", PRINCIPLES)
    assert [part["type"] for part in chat.messages[0]["content"]] == ["image", "text", "image"]


@pytest.mark.parametrize(
    "fields",
    [
        {"request": "{instruction}"},
        {"request": "{instruction} {principles} {principles}"},
        {"request": "{instruction} {principles} {other}"},
        {"request": "{instruction.__class__} {principles}"},
        {"request": "{instruction!r} {principles}"},
        {"principle": "no placeholder"},
        {"principle": "{question"},
        {"rules": "Judge.<|im_end|>"},
        {"edited_label": "<|image_pad|>"},
        {"min_pixels": 100, "max_pixels": 50},
        {"unknown": 1},
    ],
)
def test_template_with_wrong_placeholders_control_tokens_or_sizes_is_rejected(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PromptTemplate.model_validate(fields)


def test_template_round_trips_and_a_missing_one_is_replaced_by_the_default(tmp_path: Path) -> None:
    assert PromptTemplate.load(tmp_path) == PromptTemplate()
    template = PromptTemplate(rules="é \U0001f600", max_pixels=4096)
    template.save(tmp_path)
    assert PromptTemplate.load(tmp_path) == template
    (tmp_path / PROMPT_FILE).write_text('{"rulez": 1}')
    with pytest.raises(ValueError, match=PROMPT_FILE):
        PromptTemplate.load(tmp_path)


def test_tiny_verifier_loads_with_auto_classes_and_encodes_any_text(tiny: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    text = 'top-left is red square?\n[{"question": "é漢\U0001f600", "score": 1}]'
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("<score>7.5</score>")["input_ids"]) <= 3


def test_images_are_resized_to_the_limits_of_the_template(tiny: Path) -> None:
    model, processor, template = load_verifier(tiny)
    chat = build_chat(template, Image.new("RGB", (32, 32)), Image.new("RGB", (900, 600)), "x", PRINCIPLES)
    text = processor.apply_chat_template(chat.messages, tokenize=False, add_generation_prompt=True)
    batch = processor(text=[text], images=chat.images, return_tensors="pt")
    small, large = batch["image_grid_thw"].prod(-1).tolist()
    assert small == 16  # 4 x 4 patches of 8 pixels
    assert 16 < large <= 64  # max_pixels 64 x 64
    with torch.no_grad():
        assert torch.isfinite(model(**batch).logits).all()


def test_equal_seeds_give_equal_folders_and_any_change_changes_the_digest(tmp_path: Path) -> None:
    first = build_tiny_verifier(tmp_path / "a", seed=1, size="small")
    again = build_tiny_verifier(tmp_path / "b", seed=1, size="small")
    other = build_tiny_verifier(tmp_path / "c", seed=2, size="small")
    assert folder_digest(first) == folder_digest(again)
    assert folder_digest(first).startswith("sha256:")
    assert folder_digest(first) != folder_digest(other)
    PromptTemplate().save(again)
    assert folder_digest(first) != folder_digest(again)


def test_saving_a_loaded_verifier_reproduces_its_files(tiny: Path, tmp_path: Path) -> None:
    model, processor, template = load_verifier(tiny)
    save_verifier(model, processor, template, tmp_path / "again")
    names = {path.name for path in tiny.iterdir()}
    assert {path.name for path in (tmp_path / "again").iterdir()} == names
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja", PROMPT_FILE):
        assert (tmp_path / "again" / name).read_bytes() == (tiny / name).read_bytes()


def test_unsupported_architecture_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="llama"):
        load_verifier(tmp_path)
