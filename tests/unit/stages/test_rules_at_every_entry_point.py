"""Every entry point refuses the same invalid rows with the same message, which names the file, the row and the field."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset, Features, Image, List, Value

from editr1.config.curate import CurateConfig
from editr1.config.evaluate import EvaluateConfig
from editr1.config.grpo import GrpoConfig
from editr1.config.sft import SftConfig
from editr1.curation.pipeline import curate
from editr1.data.check import check_file
from editr1.data.importer import format_problem, import_folder
from editr1.data.tables import write_table
from editr1.data.types import (
    EditCase,
    PreferencePair,
    ScoreFailure,
    ScoreItem,
)
from editr1.evaluation.benchmarks import load_editscore, load_tiger
from editr1.parallel.context import DistributedContext
from editr1.serving.api import decode_items, encode_request
from editr1.serving.engines.base import Sampling
from editr1.serving.scoring import score_items
from editr1.stages import curate as curate_stage
from editr1.stages import evaluate, grpo, sft
from editr1.verifier.model import load_processor, load_template
from editr1.verifier.prompt import PromptTemplate
from editr1.verifier.rows import RowCache, pair_rows, sft_rows
from tests.unit.stages.invalid_rows import BAD, VERIFIER, Bad, Content, context, refusal, table, unexpected_call


def at_import(folder: Path, bad: Bad) -> str:
    lines = []
    for number, content in enumerate((Content(), bad.row)):
        for name in ("source", "edited"):
            (folder / f"{name}{number}.png").write_bytes(getattr(content, name))
        principles = [principle.model_dump(mode="json") for principle in content.principles]
        line = {"source": f"source{number}.png", "edited": f"edited{number}.png", "editor": "e"}
        lines.append(json.dumps(line | {"instruction": content.instruction, "principles": principles}))
    path = folder / "table.jsonl"
    path.write_text("\n".join(lines))
    report = import_folder(folder, path, folder / "out")
    assert report.files == []
    [problem] = report.problems
    return format_problem(problem).replace(f"{path}:2:", f"{path}: row 2:")


def at_check(folder: Path, bad: Bad) -> str:
    path = table(folder, bad, Content.quadruple)
    [problem, *_] = [found for found in check_file(path) if found.row == 2]
    return f"{path}: {problem}"


def at_curate(folder: Path, bad: Bad) -> str:
    candidates = table(folder, bad, Content.quadruple)
    write_table(folder / "cases.parquet", [Content().case()], EditCase)
    settings = CurateConfig()
    return refusal(lambda: curate(settings, cases=folder / "cases.parquet", candidates=candidates, out=folder / "out"))


def at_curate_stage(folder: Path, bad: Bad) -> str:
    (folder / "pairs").mkdir()
    table(folder, bad, Content.pair).rename(folder / "pairs" / "pairs.parquet")
    copy = curate_stage._copy_rows
    return refusal(lambda: copy(folder, "pairs", PreferencePair, lambda *_: True, folder / "out.parquet"))


def at_sft(folder: Path, bad: Bad) -> str:
    path = table(folder, bad, Content.sft_row)
    template = load_template(VERIFIER)
    cache = RowCache(folder / "cache", DistributedContext())
    return refusal(lambda: sft_rows(path, load_processor(VERIFIER, template), template, 4096, cache))


def at_sft_from_pairs(folder: Path, bad: Bad) -> str:
    tables = {"pairs": table(folder, bad, Content.pair)}
    return refusal(lambda: sft._sample_rows(context(None, tables), SftConfig(), folder / "rows.parquet"))


def at_gcpo(folder: Path, bad: Bad) -> str:
    path = table(folder, bad, Content.pair)
    template = load_template(VERIFIER)
    cache = RowCache(folder / "cache", DistributedContext())
    return refusal(lambda: pair_rows(path, load_processor(VERIFIER, template), template, 4096, 64, cache))


def at_grpo(folder: Path, bad: Bad) -> str:
    tables = {"cases": table(folder, bad, Content.case)}
    return refusal(lambda: grpo.body(context(GrpoConfig(), tables)))


def at_evaluate_pairs(folder: Path, bad: Bad) -> str:
    tables = {"pairs": table(folder, bad, Content.pair)}
    return refusal(lambda: evaluate.body(context(EvaluateConfig(), tables, sft=str(VERIFIER))))


def at_evaluate_cases(folder: Path, bad: Bad) -> str:
    tables = {"cases": table(folder, bad, Content.case)}
    return refusal(lambda: evaluate.body(context(EvaluateConfig(), tables, before="e", rl=str(VERIFIER))))


ENTRY_POINTS = {
    "import": at_import, "check": at_check, "curate": at_curate, "curate-stage": at_curate_stage, "sft": at_sft,
    "sft-from-pairs": at_sft_from_pairs, "gcpo": at_gcpo, "grpo": at_grpo, "evaluate-pairs": at_evaluate_pairs,
    "evaluate-cases": at_evaluate_cases,
}  # fmt: skip
WITHOUT_EDITS = ("grpo", "evaluate-cases")
"""Entry points whose rows have no edited image."""


@pytest.mark.parametrize(
    ("entry", "name"),
    [(e, n) for e in ENTRY_POINTS for n in BAD if not (e in WITHOUT_EDITS and BAD[n].field == "edited")],
)
def test_invalid_row_is_refused_with_file_row_and_field(entry: str, name: str, tmp_path: Path) -> None:
    bad = BAD[name]
    message = ENTRY_POINTS[entry](tmp_path, bad)
    where, _, rest = message.partition(": row 2: ")
    assert rest and Path(where).parent.is_relative_to(tmp_path), message
    names = {"question": "question", "edited": "image"}
    shown = bad.field if entry == "import" and bad.field == "edited" else names.get(bad.field, bad.field)
    assert rest.split(":")[0].endswith(shown), message
    assert bad.message in rest


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_invalid_item_fails_in_the_server_with_the_same_rule(bad: Bad) -> None:
    """An item is refused when it is received or, for what only decoding finds, before the engine is called."""
    body = json.loads(encode_request([bad.row.item(), Content().item()]))
    received = decode_items(body["items"])
    assert isinstance(received[1], ScoreItem)
    outcome, *_ = (
        [received[0]] if isinstance(received[0], ScoreFailure) else score_items(NO_ENGINE, [received[0]], Sampling())
    )
    assert isinstance(outcome, ScoreFailure) and outcome.cause == "invalid"
    assert bad.message in outcome.detail
    assert outcome.detail.split(":")[0].endswith(bad.field)


NO_ENGINE: Any = SimpleNamespace(
    template=PromptTemplate(), model_digest="sha256:none", generate=lambda chats, _: [unexpected_call() for _ in chats]
)


@pytest.mark.parametrize("bad", [bad for bad in BAD.values() if bad.field != "question"])
@pytest.mark.parametrize("name", ["editscore", "tiger"])
def test_invalid_row_of_a_public_benchmark_is_refused(name: str, bad: Bad, tmp_path: Path) -> None:
    def row(content: Content) -> dict[str, object]:
        source, edited, other = (
            {"bytes": data, "path": None} for data in (content.source, content.edited, content.other)
        )
        if name == "editscore":
            return {"key": ["a", "b"], "instruction": content.instruction, "input_image": source,
                    "output_images": [edited, other], "task_type": "color_alter", "dimension": "overall"}  # fmt: skip
        return {"id": "g", "dataset": "2pair", "instruction": content.instruction, "source_image": source, "candidate_1": edited,
                "candidate_2": other, "ranking": "A>B", "comparison_type": "AvsB"}  # fmt: skip

    text = Value("string")
    features = {"instruction": text, "key": List(text), "input_image": Image(), "output_images": List(Image()),
                "task_type": text, "dimension": text, "id": text, "dataset": text, "source_image": Image(),
                "candidate_1": Image(), "candidate_2": Image(), "ranking": text, "comparison_type": text}  # fmt: skip
    rows = [row(Content()), row(bad.row) | ({"id": "h"} if name == "tiger" else {})]
    Dataset.from_list(rows, features=Features({key: features[key] for key in rows[0]})).to_parquet(
        tmp_path / "t.parquet"
    )
    load = load_editscore if name == "editscore" else load_tiger
    message = refusal(lambda: list(load(tmp_path)))
    field = {"instruction": ("instruction",), "source": ("input_image", "source_image")}.get(
        bad.field, ("output_images", "candidate_1")
    )
    assert message.startswith(tuple(f"{tmp_path / 't.parquet'}, row 1: {name}: " for name in field))
    assert bad.message in message
