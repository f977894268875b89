"""Failed scores count against max_failed_fraction when the verifier scores the editors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from editr1.config.evaluate import EvaluateConfig
from editr1.data.types import EditCase, FailureCause, ScoreFailure
from editr1.evaluation.scoring import TooManyFailures
from editr1.stages import evaluate


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stage whose editor returns the source unchanged and whose verifier fails on every edit."""
    monkeypatch.setattr(evaluate, "_editor", lambda *_a: lambda sources, _i: list(sources))
    failure = ScoreFailure(cause=FailureCause.UNPARSED, detail="no score")
    monkeypatch.setattr(evaluate, "_scorer", lambda *_a: lambda items: [failure] * len(items))
    return SimpleNamespace(
        job=SimpleNamespace(inputs={"before": "a", "rl": "b"}),
        progress=SimpleNamespace(phase=lambda *_a: None, step=lambda *_a: None),
        should_stop=lambda: False,
    )


def test_evaluation_stops_if_edits_cannot_be_scored(context: Any, four: list[EditCase]) -> None:
    config = EvaluateConfig(ground_truth="none")
    with pytest.raises(TooManyFailures):
        evaluate._edit_cases(context, config, "before", "editor before RL", four, None)


def test_gallery_shows_why_an_edit_has_no_score(context: Any, four: list[EditCase]) -> None:
    config = EvaluateConfig(ground_truth="shapes", gallery_size=2)
    truth = evaluate._ground_truth(config)
    rows = evaluate._edit_cases(context, config, "before", "editor before RL", four, truth)
    assert sum(isinstance(row.outcome, ScoreFailure) for row in rows) == 2


def test_several_greedy_traces_are_refused() -> None:
    with pytest.raises(ValidationError, match="num_traces 4 at temperature 0"):
        EvaluateConfig(num_traces=4)


@pytest.fixture
def four() -> list[EditCase]:
    from editr1.shapes.cases import generate_cases

    return generate_cases(4, 0, "t", with_principles=True)
