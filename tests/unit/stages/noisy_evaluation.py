"""Run the evaluate stage with verifiers and editors whose output is random, so that every metric differs from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editr1 import shapes
from editr1.config.evaluate import EvaluateConfig
from editr1.data.types import ScoreItem, ScoreOutcome
from editr1.serving.engines.base import EngineError, Generation, Sampling
from editr1.serving.scoring import score_items
from editr1.stages import evaluate
from editr1.verifier.prompt import PromptTemplate
from editr1.verifier.trace import format_trace

VERIFIER = Path(shapes.__file__).parent / "assets" / "verifier"
"""A verifier whose tokenizer and context length check the lengths of the prompts."""


class NoisyVerifier:
    """An engine whose answers are random, whose traces are sometimes invalid, and that sometimes fails."""

    model_digest = "sha256:noisy"
    template = PromptTemplate()

    def __init__(self, items: list[ScoreItem], rng: np.random.Generator) -> None:
        self._items, self._rng = items, rng

    def generate(self, chats: Any, sampling: Sampling) -> list[list[Generation] | EngineError]:
        return [self._answer(item, sampling.num_traces) for item in self._items]

    def _answer(self, item: ScoreItem, n: int) -> list[Generation] | EngineError:
        kind = self._rng.random()
        if kind < 0.03:
            return EngineError("out of memory")
        traces = []
        for _ in range(n):
            bits = self._rng.integers(0, 2, len(item.principles)).tolist()
            text = format_trace("because", item.principles, bits, float(self._rng.integers(0, 5)) * 2)
            broken = kind < 0.06 or self._rng.random() < 0.2
            traces.append(Generation(text="no score" if broken else text, prompt_tokens=1, completion_tokens=1))
        return traces


def evaluate_noisily(
    work: Path, config: EvaluateConfig, models: Sequence[str], sets: Mapping[str, Path] | None = None
) -> Path:
    """Run the stage on ``pairs.parquet`` and ``cases.parquet`` in ``work``, and return its artifact.

    ``models`` are the inputs that are verifiers or editors. ``sets`` are the folders of public benchmarks.
    """
    folders = {name: str(folder) for name, folder in (sets or {}).items()}
    calls = np.random.default_rng(3)

    def scorer(*_: Any) -> Any:
        def score(items: list[ScoreItem]) -> list[ScoreOutcome]:
            return score_items(NoisyVerifier(items, calls), items, Sampling(temperature=1.0, num_traces=4))  # type: ignore[arg-type]

        return score

    def editor(*_: Any) -> Any:
        return lambda sources, _i: [
            Image.fromarray(np.clip(np.asarray(s) + calls.integers(-60, 60), 0, 255).astype(np.uint8)) for s in sources
        ]

    context = SimpleNamespace(
        job=SimpleNamespace(run="r", inputs=dict.fromkeys(("pairs", "cases", *models, *folders), "d")),
        settings=lambda _kind: config,
        check_inputs=lambda: None,
        input=lambda role: folders.get(role, str(VERIFIER)),
        table=lambda name: work / f"{name}.parquet",
        output_folder=lambda name: (work / name).mkdir() or work / name,
        commit=lambda *_a, **_k: None,
        add_missing=lambda *_a: None,
        progress=SimpleNamespace(phase=lambda *_a: None, step=lambda *_a, **_k: None),
        should_stop=lambda: False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "_scorer", scorer)
        patch.setattr(evaluate, "_editor", editor)
        evaluate.body(context)  # type: ignore[arg-type]
    return work / "evaluation"
