"""The transformers engine with a real, tiny verifier."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from editr1.config.serve import ServeConfig
from editr1.data.types import Category, FailureCause, Principle, ScoreFailure
from editr1.serving.engines.base import InvalidChat, Sampling
from editr1.serving.engines.transformers_engine import TransformersEngine
from editr1.serving.run import make_engine
from editr1.serving.scoring import score_items
from editr1.verifier.chat import Chat, build_chat
from editr1.verifier.model import folder_digest, load_verifier


@pytest.fixture(scope="module")
def engine(tiny_folder: Path) -> TransformersEngine:
    return TransformersEngine.load(tiny_folder, device="cpu", max_batch_size=8)


@pytest.fixture(scope="module")
def chats(engine: TransformersEngine) -> list[Chat]:
    principles = [Principle(question="is it red?", category=Category.KEEP)]
    generator = torch.Generator().manual_seed(0)

    def random_image(size: int) -> Image.Image:
        return Image.fromarray(torch.randint(0, 256, (size, size, 3), generator=generator, dtype=torch.uint8).numpy())

    return [
        build_chat(engine.template, random_image(32), random_image(32 + 16 * (k % 2)), "make it " + "x" * k, principles)
        for k in range(6)
    ]


def test_inputs_equal_the_output_of_the_library_processor(engine, chats, tiny_folder) -> None:
    _, processor, _ = load_verifier(tiny_folder)
    texts = [processor.apply_chat_template(c.messages, tokenize=False, add_generation_prompt=True) for c in chats]
    images = [image for chat in chats for image in chat.images]
    theirs = processor(text=texts, images=images, padding=True, return_tensors="pt")
    processed = engine._process_images(chats)
    ours = engine._inputs(chats, [engine._tokens(chat, processed) for chat in chats], processed)
    assert set(ours) == set(theirs)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key].to(value.dtype)), key


def test_greedy_traces_match_the_library_and_are_batch_invariant(engine, chats, tiny_folder) -> None:
    together = engine.generate(chats, Sampling(max_tokens=12))
    separate = [engine.generate([chat], Sampling(max_tokens=12))[0] for chat in chats]
    assert together == separate
    model, processor, _ = load_verifier(tiny_folder)
    text = processor.apply_chat_template(chats[3].messages, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=chats[3].images, return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert together[3][0].text == processor.tokenizer.decode(out, skip_special_tokens=True)
    assert together[3][0].prompt_tokens == inputs["input_ids"].shape[1]


def test_several_traces_per_chat_may_exceed_one_batch(engine, chats) -> None:
    for n in (3, 11):
        answers = engine.generate(chats[:3], Sampling(num_traces=n, temperature=1.0, max_tokens=6, seed=1))
        assert [len(answer) for answer in answers] == [n] * 3
        assert len({g.text for answer in answers for g in answer}) > n
        assert all(1 <= g.completion_tokens <= 6 for answer in answers for g in answer)


def test_seed_makes_sampling_reproducible_and_keeps_the_global_generator(engine, chats) -> None:
    sampling = Sampling(num_traces=2, temperature=1.0, max_tokens=8, seed=7)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = engine.generate(chats[:2], sampling)
    assert torch.equal(torch.get_rng_state(), before)
    assert engine.generate(chats[:2], sampling) == first
    assert engine.generate(chats[:2], sampling.model_copy(update={"seed": 8})) != first


def test_settings_of_the_checkpoint_do_not_change_traces(engine, chats, tiny_folder, tmp_path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "verifier")
    file = folder / "generation_config.json"
    settings = {"do_sample": True, "repetition_penalty": 50.0, "top_k": 1, "min_p": 0.99, "no_repeat_ngram_size": 1}
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    other = TransformersEngine.load(folder, device="cpu", max_batch_size=8)
    for sampling in (Sampling(max_tokens=12), Sampling(num_traces=2, temperature=1.0, max_tokens=12, seed=3)):
        assert other.generate(chats[:2], sampling) == engine.generate(chats[:2], sampling)


def test_truncated_trace_says_so(engine, chats) -> None:
    ((trace,),) = engine.generate(chats[:1], Sampling(max_tokens=3))
    assert trace.problem == "the trace was cut off at max_tokens = 3"


def test_control_tokens_are_never_generated(engine, chats) -> None:
    answers = engine.generate(chats, Sampling(num_traces=4, temperature=2.0, max_tokens=64, seed=0))
    model, tokenizer = engine._model, engine._tokenizer
    bare = [tokenizer(g.text)["input_ids"] for answer in answers for g in answer]
    assert not {token for row in bare for token in row} & set(tokenizer.all_special_ids)
    assert model.generation_config.suppress_tokens is None  # only the request's settings apply


def test_prompt_longer_than_the_context_does_not_affect_other_chats(engine, chats) -> None:
    long = build_chat(
        engine.template, *chats[0].images, "y" * 5000, [Principle(question="is it red?", category=Category.KEEP)]
    )
    first, second, third = engine.generate([chats[0], long, chats[1]], Sampling(max_tokens=4))
    assert isinstance(second, InvalidChat)
    assert "but the limit is 4096" in str(second)
    assert [first, third] == engine.generate(chats[:2], Sampling(max_tokens=4))


def test_long_prompt_does_not_truncate_other_traces(engine, chats) -> None:
    principles = [Principle(question="is it red?", category=Category.KEEP)]
    texts = ("y" * count for count in range(3900, 4096))
    long = next(
        chat
        for chat in (build_chat(engine.template, *chats[0].images, text, principles) for text in texts)
        if 0 < engine._context - len(engine._tokens(chat, engine._process_images([chat]))) < 6
    )
    single = engine.generate([chats[0]], Sampling(max_tokens=24))
    batched, truncated = engine.generate([chats[0], long], Sampling(max_tokens=24))
    assert batched == single[0]
    assert truncated[0].completion_tokens < 6


def test_random_weights_yield_failures_without_scores(engine, make_items) -> None:
    outcomes = score_items(engine, make_items(3), Sampling(max_tokens=8))
    assert all(isinstance(o, ScoreFailure) and o.cause is FailureCause.UNPARSED for o in outcomes)


def test_model_digest_equals_the_folder_digest(engine, tiny_folder, tmp_path) -> None:
    assert engine.model_digest == folder_digest(tiny_folder)
    given = make_engine(ServeConfig(device="cpu"), tiny_folder, model_digest="sha256:" + "a" * 64)
    assert given.model_digest == "sha256:" + "a" * 64
