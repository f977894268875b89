"""Every metric of a public benchmark can be recomputed from the evaluation artifact and the files of the benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from editr1.config.evaluate import EvaluateConfig
from editr1.data.tables import write_table
from editr1.data.types import Category, EditCase, EncodedImage, PreferencePair, Principle, case_digest
from editr1.evaluation.judge import Refused
from editr1.evaluation.report import ReportData, render_report
from editr1.shapes.cases import generate_cases
from editr1.stages.runtime import public_sets
from tests.unit.evaluation import examples, recomputed_public
from tests.unit.stages.noisy_evaluation import evaluate_noisily

QUESTIONS = (
    Principle(question="brighter?", category=Category.FOLLOW),
    Principle(question="kept?", category=Category.KEEP),
)
TYPES = ("color_alter", "style_change", "ps_human")


class Pictures:
    """Pictures that differ from each other."""

    def __init__(self) -> None:
        self._count = 0

    def next(self) -> bytes:
        self._count += 1
        return examples.image(self._count % 256, self._count // 256, 7).data


def instruction(case: int) -> str:
    return f"make it {case % 5} times brighter"


def principles(source: bytes, text: str) -> tuple[Principle, ...]:
    """Return the principles of a case. One case of ten has none."""
    return QUESTIONS if int(case_digest(source, text)[:4], 16) % 10 else ()


def write_sets(folder: Path) -> dict[str, Path]:
    """Write each benchmark in its published layout. Three cases in a row share a source image."""
    pictures = Pictures()
    sources = [picture for picture in (pictures.next() for _ in range(40)) for _ in range(3)]
    tables = {
        "editscore": list(editscore_rows(sources, pictures)),
        "tiger": list(tiger_rows(sources, pictures)),
        "gedit": [
            {
                "key": f"k{i}", "task_type": TYPES[i % 3], "instruction": instruction(i), "input_image": source,
                "instruction_language": "cn" if i % 10 == 9 else "en",
            }
            for i, source in enumerate(sources)
        ],
    }  # fmt: skip
    for name, rows in tables.items():
        (folder / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), folder / name / "rows.parquet")
    (folder / "gedit" / "prompts.json").write_text('{"sc": "Was it done: <instruction>?", "pq": "Is it sound?"}')
    write_imgedit(folder / "imgedit", sources)
    return {name: folder / name for name in (*tables, "imgedit")}


def editscore_rows(sources: Sequence[bytes], pictures: Pictures) -> Iterator[dict[str, Any]]:
    for i, source in enumerate(sources):
        edits = [pictures.next() for _ in range(3)]
        for number, (a, b) in enumerate(combinations(range(3), 2)):
            yield {
                "key": [f"{i}-{a}", f"{i}-{b}"],
                "instruction": instruction(i),
                "input_image": source,
                "output_images": [edits[a], edits[b]],
                "task_type": TYPES[i % 3],
                "dimension": ("prompt_following", "consistency", "overall")[(i + number) % 3],
            }


def tiger_rows(sources: Sequence[bytes], pictures: Pictures) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(1)
    for i, source in enumerate(sources):
        size = 2 + i % 3
        edits, rank = (
            {letter: pictures.next() for letter in "ABCD"[:size]},
            dict(zip("ABCD", rng.permutation(4), strict=True)),
        )
        for a, b in combinations(edits, 2):
            ranking = f"{a}>{b}" if rank[a] > rank[b] else f"{b}>{a}"
            yield {
                "id": f"{i}" if size == 2 else f"{i}_{a}{b}",
                "dataset": f"{size}pair",
                "instruction": instruction(i),
                "source_image": source,
                "candidate_1": edits[a],
                "candidate_2": edits[b],
                "comparison_type": f"{a}vs{b}",
                "ranking": f"{a}={b}" if size == 2 and i % 4 == 0 else ranking,
            }


def write_imgedit(folder: Path, sources: Sequence[bytes]) -> None:
    """Write ImgEdit-Bench. Each case has its own copy of the source image, under a different name."""
    (folder / "singleturn").mkdir(parents=True)
    cases = {}
    for i, source in enumerate(sources):
        (folder / "singleturn" / f"{i}.png").write_bytes(source)
        cases[str(i)] = {"id": f"{i}.png", "prompt": instruction(i), "edit_type": ("add", "remove")[i % 2]}
    (folder / "basic_edit.json").write_text(json.dumps(cases))
    (folder / "prompts.json").write_text('{"add": "Rate <edit_prompt>.", "remove": "Judge <edit_prompt>."}')


@contextmanager
def noisy_judge(*_: Any) -> Iterator[Any]:
    """A judge with random ratings that refuses some requests, and whose answers sometimes cannot be parsed."""
    rng = np.random.default_rng(4)

    def judge(prompt: str, _images: Sequence[EncodedImage]) -> str | Refused:
        kind, ratings = rng.random(), rng.integers(1, 6, 3).tolist()
        if kind < 0.05:
            return Refused(reason="400: this image is not allowed")
        if kind < 0.1:
            return "I cannot say."
        if prompt.startswith(("Was", "Is")):
            return json.dumps({"score": [2 * n for n in ratings[:2]], "reasoning": "seen"})
        lines = [f"Aspect {letter}: {n}" for letter, n in zip("ABC", ratings, strict=True)]
        return "\n".join(lines[: 2 if kind < 0.2 else 3])  # the published rule accepts two ratings

    yield judge


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Run the whole stage on all public benchmarks. Return its artifact and the folder of the benchmarks."""
    work = tmp_path_factory.mktemp("public")
    sets = write_sets(work)
    cases = generate_cases(4, 0, "t", with_principles=True)
    write_table(work / "cases.parquet", cases, EditCase)
    pairs = [examples.pair_of(case.case_id, case, case.source, examples.image(1, 2, 3)) for case in cases]
    write_table(work / "pairs.parquet", pairs, PreferencePair)

    def known(_context: Any, _config: Any, name: Any, folder: Path) -> dict[str, tuple[Principle, ...]]:
        rows = public_sets._cases(name, folder)
        return {case.case_id: principles(case.source.data, case.instruction) for case in rows}

    config = EvaluateConfig(num_traces=4, temperature=1.0, max_failed_fraction=1.0, bootstrap_samples=2000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(public_sets, "_principles", known)
        patch.setattr(public_sets, "_judge", noisy_judge)
        return evaluate_noisily(work, config, ("rl", "before", "after"), sets), work


def test_every_metric_of_a_public_benchmark_equals_the_one_recomputed_from_the_artifact(
    evaluated: tuple[Path, Path],
) -> None:
    assert recomputed_public.check(*evaluated) > 60


def test_page_shows_every_recomputed_metric_of_a_public_benchmark(evaluated: tuple[Path, Path]) -> None:
    artifact, sets = evaluated
    data = ReportData.model_validate_json((artifact / "evaluation.json").read_bytes())
    recomputed_public.check_page(render_report(data), artifact, sets)
