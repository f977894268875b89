from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from editr1.data.types import Verdict
from editr1.shapes.perception import draw_sample
from editr1.shapes.questions import parse_question
from editr1.shapes.tiny_verifier import build_tiny_verifier
from editr1.shapes.train_verifier import encode
from editr1.shapes.truth import read_picture
from editr1.verifier.model import load_verifier
from editr1.verifier.trace import parse_trace


def test_samples_ask_about_every_place_in_random_order_and_their_traces_tell_the_truth() -> None:
    rng = np.random.default_rng(0)
    bits, orders = Counter(), set()
    for _ in range(100):
        sample = draw_sample(rng)
        verdict = parse_trace(sample.trace, sample.principles)
        assert isinstance(verdict, Verdict) and verdict.scores == sample.verdicts
        questions = [parse_question(item.question) for item in sample.principles]
        assert all(question is not None for question in questions)
        assert sorted(question.place for question in questions if question) == [-1, 0, 1, 2, 3, 4]
        truth = [q.verdict(read_picture(sample.first).scene, read_picture(sample.second)) for q in questions if q]
        assert list(verdict.scores) == truth
        orders.add(tuple(question.place for question in questions if question))
        bits.update(sample.verdicts)
    assert len(orders) > 80
    assert 0.3 < bits[1] / bits.total() < 0.7


def test_the_final_score_of_a_sample_says_nothing_about_its_verdicts() -> None:
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(400):
        sample = draw_sample(rng)
        verdict = parse_trace(sample.trace, sample.principles)
        assert isinstance(verdict, Verdict)
        pairs.append((verdict.score, verdict.average))
    assert abs(float(np.corrcoef(np.array(pairs).T)[0, 1])) < 0.15


def test_only_the_trace_is_learnt_and_most_random_scores_are_left_out(tmp_path: Path) -> None:
    _, processor, template = load_verifier(build_tiny_verifier(tmp_path), "float32")
    rng = np.random.default_rng(2)
    samples = [draw_sample(rng) for _ in range(9)]
    batch = encode(processor, template, samples)
    for index, (ids, labels, sample) in enumerate(zip(batch["input_ids"], batch["labels"], samples, strict=True)):
        learnt = processor.tokenizer.decode(labels[labels != -100])
        whole = sample.trace + "<|im_end|>\n"
        opening = whole.index("<score>") + len("<score>")
        without = whole[:opening] + whole[whole.index("</score>") :]
        assert learnt == (whole if index % 8 == 0 else without)
        assert torch.equal(labels[labels != -100], ids[labels != -100])
