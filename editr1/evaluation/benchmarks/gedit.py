"""GEdit-Bench (Step1X-Edit, arXiv 2504.17761): 11 types of real instructions, judged by VIEScore.

Rows: task_type, key, instruction, instruction_language, input_image, input_image_raw, Intersection_exist. Edits lie in
``fullset/<task_type>/<language>/<key>.png``. The paper reports the English full set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from editr1.data.images import resized_to
from editr1.data.types import EncodedImage, Unparsed
from editr1.evaluation.benchmarks.rows import BenchmarkError, json_object, picture, read_rows, text
from editr1.evaluation.judge import Judge, Marks, parse_viescore
from editr1.evaluation.metrics import DEFAULT, Bootstrap, Estimate, macro_mean
from editr1.evaluation.report.model import BenchmarkRow, BenchmarkTable

TYPES = (
    "background_change",
    "color_alter",
    "material_alter",
    "motion_change",
    "ps_human",
    "style_change",
    "subject-add",
    "subject-remove",
    "subject-replace",
    "text_change",
    "tone_transfer",
)
_COLUMNS = ("task_type", "key", "instruction", "instruction_language", "input_image")


class GEditItem(NamedTuple):
    """One case. ``source`` is the set's resized input picture; ``intersection`` marks the subset of the authors."""

    key: str
    task_type: str
    language: str
    instruction: str
    source: bytes
    intersection: bool


class GEditMarks(NamedTuple):
    """The two answers of the judge on one edit; ``missing`` when there is no edit."""

    task_type: str
    sc: Marks | Unparsed | None
    pq: Marks | Unparsed | None

    @property
    def missing(self) -> bool:
        """True when the editor left no picture."""
        return self.sc is None and self.pq is None


class GEditPrompts(NamedTuple):
    """The judge's two prompts (the authors' are VIEScore's); ``<instruction>`` in ``sc`` is replaced."""

    sc: str
    pq: str


def load_gedit(path: Path, *, language: Literal["en", "cn"] = "en") -> Iterator[GEditItem]:
    """Stream the cases of one language. Raises BenchmarkError on another layout or an unknown type."""
    for row in read_rows(path, _COLUMNS, optional=("Intersection_exist",)):
        if text(row, "instruction_language") != language:
            continue
        kind = text(row, "task_type")
        if kind not in TYPES:
            raise BenchmarkError(f"{row.where}: task_type {kind!r} is unknown; allowed: {', '.join(TYPES)}")
        yield GEditItem(
            text(row, "key"),
            kind,
            language,
            text(row, "instruction"),
            picture(row, "input_image"),
            bool(row.values.get("Intersection_exist", False)),
        )


def load_gedit_prompts(folder: Path) -> GEditPrompts:
    """The judge's prompts from ``prompts.json`` ({"sc": ..., "pq": ...}), which the set itself does not bring.

    Raises BenchmarkError when the file is missing or another, or ``sc`` has no place for the instruction.
    """
    file = folder / "prompts.json"
    found = json_object(file, 'the judge\'s two prompts, as {"sc": "...<instruction>...", "pq": "..."}')
    sc, pq = found.get("sc"), found.get("pq")
    if not isinstance(sc, str) or not isinstance(pq, str):
        raise BenchmarkError(f"{file}: must hold two texts, sc and pq")
    if "<instruction>" not in sc:
        raise BenchmarkError(f"{file}: sc must hold <instruction> where the instruction goes")
    return GEditPrompts(sc, pq)


def edit_path(root: Path, item: GEditItem) -> Path:
    """Where the published layout keeps the edit of an item."""
    return root / "fullset" / item.task_type / item.language / f"{item.key}.png"


def judge_gedit(
    items: Iterable[GEditItem], edits: Path | Callable[[GEditItem], bytes | None], judge: Judge, prompts: GEditPrompts
) -> list[GEditMarks]:
    """Ask the judge about every edit, resized to its source's size: SC with both pictures, PQ with the edit alone."""
    found: list[GEditMarks] = []
    for item in items:
        edited = _edited(edits, item)
        if edited is None:
            found.append(GEditMarks(item.task_type, None, None))
            continue
        pictures = [EncodedImage(data=item.source), EncodedImage(data=resized_to(edited, item.source))]
        sc = parse_viescore(judge(prompts.sc.replace("<instruction>", item.instruction), pictures))
        pq = parse_viescore(judge(prompts.pq, pictures[1:]))
        found.append(GEditMarks(item.task_type, sc, pq))
    return found


def gedit_table(marks: Sequence[GEditMarks], bootstrap: Bootstrap = DEFAULT) -> BenchmarkTable:
    """SC, PQ and O: an item's SC is the lower of its two marks, so is PQ, and O = sqrt(SC PQ).

    Each is the mean of a type's items, then the mean of the types.

    Published: what is missing or not parsed is dropped, as the public scripts do where they do not guess. Ours: an
    edit that is missing has 0; what is not parsed is left out and counted.
    """
    parsed: list[tuple[str, float, float]] = []
    absent: list[str] = []
    unparsed = 0
    for item in marks:
        if item.missing:
            absent.append(item.task_type)
        elif isinstance(item.sc, Marks) and isinstance(item.pq, Marks):
            parsed.append((item.task_type, min(item.sc.values), min(item.pq.values)))
        else:
            unparsed += 1
    columns: dict[str, Callable[[float, float], float]] = {
        "SC": lambda sc, _pq: sc,
        "PQ": lambda _sc, pq: pq,
        "O": lambda sc, pq: math.sqrt(sc * pq),
    }
    kinds = [kind for kind, _, _ in parsed]
    rows: list[BenchmarkRow] = []
    for name, measure in columns.items():
        values = [measure(sc, pq) for _, sc, pq in parsed]
        rows.append(
            BenchmarkRow(
                name=f"{name}, mean of types",
                published=_macro(values, kinds, bootstrap),
                ours=_macro(values + [0.0] * len(absent), kinds + absent, bootstrap),
            )
        )
    for kind in sorted(set(kinds)):
        values = [math.sqrt(sc * pq) for k, sc, pq in parsed if k == kind]
        gone = absent.count(kind)
        rows.append(
            BenchmarkRow(
                name=f"O: {kind}",
                published=_macro(values, [kind] * len(values), bootstrap),
                ours=_macro(values + [0.0] * gone, [kind] * (len(values) + gone), bootstrap),
            )
        )
    return BenchmarkTable(name="GEdit-Bench", rows=tuple(rows), unparsed=unparsed, missing=len(absent))


def _macro(values: Sequence[float], kinds: Sequence[str], bootstrap: Bootstrap) -> Estimate | None:
    return macro_mean(values, kinds, bootstrap) if values else None


def _edited(edits: Path | Callable[[GEditItem], bytes | None], item: GEditItem) -> bytes | None:
    if callable(edits):
        return edits(item)
    file = edit_path(edits, item)
    return file.read_bytes() if file.is_file() else None
