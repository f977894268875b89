"""Samples that teach the small verifier to perceive images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from editr1.data.types import Verdict
from editr1.shapes.perception import generate_sample
from editr1.shapes.questions import parse_question
from editr1.shapes.tiny_verifier import build_tiny_verifier
from editr1.shapes.train_verifier import encode
from editr1.shapes.truth import read_image
from editr1.verifier.model import load_verifier
from editr1.verifier.trace import parse_trace


def test_samples_have_one_question_per_place_in_random_order_and_true_traces() -> None:
    rng = np.random.default_rng(0)
    bits, orders = Counter(), set()
    for _ in range(100):
        sample = generate_sample(rng)
        verdict = parse_trace(sample.trace, sample.principles)
        assert isinstance(verdict, Verdict) and verdict.scores == sample.verdicts
        questions = [parse_question(item.question) for item in sample.principles]
        assert all(question is not None for question in questions)
        assert sorted(question.place for question in questions if question) == [-1, 0, 1, 2, 3, 4]
        truth = [q.verdict(read_image(sample.first).scene, read_image(sample.second)) for q in questions if q]
        assert list(verdict.scores) == truth
        orders.add(tuple(question.place for question in questions if question))
        bits.update(sample.verdicts)
    assert len(orders) > 80
    assert 0.3 < bits[1] / bits.total() < 0.7


def test_final_score_of_a_sample_is_independent_of_its_verdicts() -> None:
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(400):
        sample = generate_sample(rng)
        verdict = parse_trace(sample.trace, sample.principles)
        assert isinstance(verdict, Verdict)
        pairs.append((verdict.score, verdict.average))
    assert abs(float(np.corrcoef(np.array(pairs).T)[0, 1])) < 0.15


def test_labels_cover_the_trace_but_the_score_only_in_every_eighth_sample(tmp_path: Path) -> None:
    _, processor, template = load_verifier(build_tiny_verifier(tmp_path), "float32")
    rng = np.random.default_rng(2)
    samples = [generate_sample(rng) for _ in range(9)]
    batch = encode(processor, template, samples)
    for index, (ids, labels, sample) in enumerate(zip(batch["input_ids"], batch["labels"], samples, strict=True)):
        labelled = processor.tokenizer.decode(labels[labels != -100])
        whole = sample.trace + "<|im_end|>\n"
        opening = whole.index("<score>") + len("<score>")
        without = whole[:opening] + whole[whole.index("</score>") :]
        assert labelled == (whole if index % 8 == 0 else without)
        assert torch.equal(labels[labels != -100], ids[labels != -100])
