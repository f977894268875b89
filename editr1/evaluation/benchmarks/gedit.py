"""GEdit-Bench (Step1X-Edit, arXiv 2504.17761): instructions of real users, of 11 types, rated with VIEScore.

VIEScore rates semantic consistency (SC) and perceptual quality (PQ); see :mod:`editr1.evaluation.judge`.

The columns are task_type, key, instruction, instruction_language, input_image, input_image_raw and Intersection_exist.
Edits are stored as ``fullset/<task_type>/<language>/<key>.png``. The paper reports the full English set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from editr1.data.images import resized_to
from editr1.data.types import EncodedImage, Unparsed
from editr1.evaluation.benchmarks.rows import BenchmarkError, image_field, read_json_object, read_rows, text_field
from editr1.evaluation.judge import Judge, Ratings, parse_viescore
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
    """One case of GEdit-Bench. ``source`` is the resized input image of the benchmark.

    ``intersection`` is the column ``Intersection_exist``: True if the case is in the subset "Intersection" of the authors.
    """

    key: str
    task_type: str
    language: str
    instruction: str
    source: bytes
    intersection: bool


class GEditRatings(NamedTuple):
    """The two answers of the judge about one edit, for SC and for PQ. Both are None if there is no edit."""

    task_type: str
    sc: Ratings | Unparsed | None
    pq: Ratings | Unparsed | None

    @property
    def missing(self) -> bool:
        """True if there is no edited image."""
        return self.sc is None and self.pq is None


class GEditPrompts(NamedTuple):
    """The two prompts of the judge. The authors use those of VIEScore.

    ``<instruction>`` in ``sc`` is replaced with the instruction of the case.
    """

    sc: str
    pq: str


def load_gedit(path: Path, *, language: Literal["en", "cn"] = "en") -> Iterator[GEditItem]:
    """Yield the cases of one language.

    Raises:
        BenchmarkError: The layout differs from the published one, or a type is not one of the 11 types.
    """
    for row in read_rows(path, _COLUMNS, optional=("Intersection_exist",)):
        if text_field(row, "instruction_language") != language:
            continue
        kind = text_field(row, "task_type")
        if kind not in TYPES:
            raise BenchmarkError(f"{row.where}: task_type must be one of {', '.join(TYPES)}, got {kind!r}")
        yield GEditItem(
            text_field(row, "key"),
            kind,
            language,
            text_field(row, "instruction"),
            image_field(row, "input_image"),
            bool(row.values.get("Intersection_exist", False)),
        )


def load_gedit_prompts(folder: Path) -> GEditPrompts:
    """Read the judge's prompts from ``prompts.json``, which is not part of the published benchmark.

    Raises:
        BenchmarkError: The file is missing or has another layout, or ``sc`` has no placeholder for the instruction.
    """
    file = folder / "prompts.json"
    found = read_json_object(file, 'the judge\'s two prompts as {"sc": "...<instruction>...", "pq": "..."}')
    sc, pq = found.get("sc"), found.get("pq")
    if not isinstance(sc, str) or not isinstance(pq, str):
        raise BenchmarkError(f"{file}: the fields sc and pq must both be strings")
    if "<instruction>" not in sc:
        raise BenchmarkError(f"{file}: sc has no placeholder <instruction> for the instruction; add it")
    return GEditPrompts(sc, pq)


def edit_path(root: Path, item: GEditItem) -> Path:
    """Return the path of the edited image of a case in the published layout, below the folder ``root``."""
    return root / "fullset" / item.task_type / item.language / f"{item.key}.png"


def judge_gedit(
    items: Iterable[GEditItem], edits: Path | Callable[[GEditItem], bytes | None], judge: Judge, prompts: GEditPrompts
) -> list[GEditRatings]:
    """Rate every edit with the judge, at the size of its source. SC is rated on both images, PQ on the edit alone."""
    found: list[GEditRatings] = []
    for item in items:
        edited = _edited(edits, item)
        if edited is None:
            found.append(GEditRatings(item.task_type, None, None))
            continue
        images = [EncodedImage(data=item.source), EncodedImage(data=resized_to(edited, item.source))]
        sc = parse_viescore(judge(prompts.sc.replace("<instruction>", item.instruction), images))
        pq = parse_viescore(judge(prompts.pq, images[1:]))
        found.append(GEditRatings(item.task_type, sc, pq))
    return found


def gedit_table(ratings: Sequence[GEditRatings], bootstrap: Bootstrap = DEFAULT) -> BenchmarkTable:
    """Return the results: SC, PQ and O = sqrt(SC * PQ). SC and PQ are each the lower of two ratings.

    Each metric is averaged over the items of a type and then over the types. The published rule drops missing edits and
    unparsed answers. The random ratings that the public scripts use for some unparsed answers are not reproduced. Our rule scores a
    missing edit with 0, and excludes and counts unparsed answers.
    """
    parsed: list[tuple[str, float, float]] = []
    missing: list[str] = []
    unparsed = 0
    for item in ratings:
        if item.missing:
            missing.append(item.task_type)
        elif isinstance(item.sc, Ratings) and isinstance(item.pq, Ratings):
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
                name=f"{name}, mean over types",
                published=_macro(values, kinds, bootstrap),
                ours=_macro(values + [0.0] * len(missing), kinds + missing, bootstrap),
            )
        )
    for kind in sorted(set(kinds)):
        values = [math.sqrt(sc * pq) for k, sc, pq in parsed if k == kind]
        num_missing = missing.count(kind)
        rows.append(
            BenchmarkRow(
                name=f"O: {kind}",
                published=_macro(values, [kind] * len(values), bootstrap),
                ours=_macro(values + [0.0] * num_missing, [kind] * (len(values) + num_missing), bootstrap),
            )
        )
    return BenchmarkTable(name="GEdit-Bench", rows=tuple(rows), unparsed=unparsed, missing=len(missing))


def _macro(values: Sequence[float], kinds: Sequence[str], bootstrap: Bootstrap) -> Estimate | None:
    return macro_mean(values, kinds, bootstrap) if values else None


def _edited(edits: Path | Callable[[GEditItem], bytes | None], item: GEditItem) -> bytes | None:
    if callable(edits):
        return edits(item)
    file = edit_path(edits, item)
    return file.read_bytes() if file.is_file() else None
