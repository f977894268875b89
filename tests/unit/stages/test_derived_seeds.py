"""Seeds of the stages: separate calls draw independent noise, and compared models draw the same noise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from editr1.config.evaluate import EvaluateConfig
from editr1.config.sft import SftConfig
from editr1.seeding import derive_seed
from editr1.stages import evaluate, sft

IMAGES = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in range(6)]
CONTEXT: Any = SimpleNamespace(input=lambda role: role, job=SimpleNamespace(inputs={"sft": "a", "rl": "b"}))


def test_derived_seed_depends_on_every_part_and_fits_63_bits() -> None:
    seeds = [derive_seed(seed, *what) for seed in (1, 2) for what in (("ab", "c"), ("a", "bc"), ("abc",), (b"abc", 1))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "a") == derive_seed(1, "a")


def test_noise_differs_per_case_and_is_shared_by_both_editors(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[list[int]] = []
    monkeypatch.setattr("editr1.editor.policies.load_policy", lambda *_a, **_k: None)
    monkeypatch.setattr(
        "editr1.editor.sample.edit_images", lambda _p, sources, _i, _s, *, seed: seeds.append(seed) or list(sources)
    )
    config = EvaluateConfig(seed=3)
    before, after = (evaluate._editor(CONTEXT, config, role) for role in ("before", "after"))
    for start in (0, 3):
        before(IMAGES[start : start + 3], ["edit"] * 3)
    after(IMAGES, ["edit"] * 6)
    first, second, whole = seeds
    assert first + second == whole, "noise must not depend on the batches"
    assert len(set(whole)) == 6
    evaluate._editor(CONTEXT, config.model_copy(update={"seed": 4}), "before")(IMAGES, ["edit"] * 6)
    assert not set(seeds[-1]) & set(whole)


def test_trace_seed_differs_per_batch_and_is_shared_by_both_verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr("editr1.serving.engines.transformers_engine.TransformersEngine.load", lambda *_a, **_k: None)
    monkeypatch.setattr(
        "editr1.serving.scoring.score_items", lambda _e, _i, sampling: seeds.append(sampling.seed) or []
    )
    for role in ("sft", "rl"):
        score = evaluate._scorer(CONTEXT, EvaluateConfig(seed=3, num_traces=4, temperature=1.0), role)
        for _ in range(3):
            score([])
    assert len(set(seeds)) == 3
    assert seeds[:3] == seeds[3:]


def test_best_of_n_seed_differs_per_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    seeds: list[int] = []

    def picked(_pairs: Any, score: Any, on_batch: Any) -> list[Any]:
        for _ in range(3):
            score([])
        return []

    monkeypatch.setattr("editr1.serving.engines.transformers_engine.TransformersEngine.load", lambda *_a, **_k: None)
    monkeypatch.setattr(
        "editr1.serving.scoring.score_items", lambda _e, _i, sampling: seeds.append(sampling.seed) or []
    )
    monkeypatch.setattr("editr1.curation.preferred.preferred_rows", picked)
    monkeypatch.setattr("editr1.verifier.prompt_length.check_pairs", lambda *_a: None)
    monkeypatch.setattr("editr1.data.tables.read_column", lambda *_a: [])
    monkeypatch.setattr("editr1.data.tables.read_table", lambda *_a: [])
    monkeypatch.setattr("editr1.data.tables.write_table", lambda *_a: 1)
    context: Any = SimpleNamespace(
        input=lambda role: role,
        table=lambda name: tmp_path / name,
        progress=SimpleNamespace(phase=lambda *_a: None, step=lambda *_a: None),
        should_stop=lambda: False,
    )
    sft._sample_rows(context, SftConfig(best_of_n=2), tmp_path / "rows.parquet")
    assert len(set(seeds)) == 3
