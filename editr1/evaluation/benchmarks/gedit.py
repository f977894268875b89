"""GEdit-Bench (Step1X-Edit, arXiv 2504.17761): a benchmark of image editors with instructions from real users.

The benchmark has 11 types of instructions. A VLM judge rates the semantic consistency (SC) and the perceptual quality
(PQ) of each edit with the prompts of VIEScore; see :mod:`editr1.evaluation.judge`. The Edit-R1 paper (arXiv
2604.27505) reports results on the full English set.

The columns are ``task_type``, ``key``, ``instruction``, ``instruction_language``, ``input_image``, ``input_image_raw``
and ``Intersection_exist``. Edits are stored as ``fullset/<task_type>/<language>/<key>.png``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from editr1.data.images import resized_to
from editr1.data.types import EncodedImage, Unparsed
from editr1.evaluation.benchmarks.rows import (
    BenchmarkError,
    image_field,
    instruction_field,
    read_json_object,
    read_rows,
    text_field,
)
from editr1.evaluation.judge import Judge, Ratings, Refused, parse_viescore
from editr1.evaluation.metrics import DEFAULT, Bootstrap, Estimate, macro_mean
from editr1.evaluation.report.model import BenchmarkRow, BenchmarkTable
from editr1.evaluation.scoring import FailureTally

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
    """One case of GEdit-Bench. ``source`` is the column ``input_image``: the source image as resized by the authors.

    ``intersection`` is the column ``Intersection_exist``: True if the case is in the authors' subset "Intersection".
    """

    key: str
    task_type: str
    language: str
    instruction: str
    source: bytes
    intersection: bool


class GEditRatings(NamedTuple):
    """The judge's answers for one edit: ``sc`` for semantic consistency and ``pq`` for perceptual quality.

    Both are None if there is no edited image. ``source`` is the SHA-256 of the source image's file.
    """

    task_type: str
    sc: Ratings | Unparsed | None
    pq: Ratings | Unparsed | None
    source: str = ""

    @property
    def missing(self) -> bool:
        """True if the edited image is missing, so that the judge did not rate it."""
        return self.sc is None and self.pq is None


class GEditPrompts(NamedTuple):
    """The judge's prompts: ``sc`` for semantic consistency and ``pq`` for perceptual quality.

    The authors use the prompts of VIEScore. The placeholder ``<instruction>`` in ``sc`` is replaced with the instruction
    of the case.
    """

    sc: str
    pq: str


def load_gedit(path: Path, *, language: Literal["en", "cn"] = "en") -> Iterator[GEditItem]:
    """Yield the cases of GEdit-Bench whose instructions are in the given language.

    Raises:
        BenchmarkError: The files do not have the published layout, or the type of a case is not one of ``TYPES``.
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
            instruction_field(row),
            image_field(row, "input_image"),
            bool(row.values.get("Intersection_exist", False)),
        )


def load_gedit_prompts(folder: Path) -> GEditPrompts:
    """Read the judge's prompts from ``prompts.json``, which is not part of the published benchmark.

    Raises:
        BenchmarkError: The file is missing or does not contain the two prompts, or the prompt ``sc`` has no placeholder
            ``<instruction>``.
    """
    file = folder / "prompts.json"
    found = read_json_object(file, 'the judge\'s two prompts as {"sc": "...<instruction>...", "pq": "..."}')
    sc, pq = found.get("sc"), found.get("pq")
    if not isinstance(sc, str) or not isinstance(pq, str):
        raise BenchmarkError(f"{file}: the fields 'sc' and 'pq' (the judge's prompts) must both be strings")
    if "<instruction>" not in sc:
        raise BenchmarkError(f"{file}: the prompt 'sc' does not contain the placeholder <instruction>; add it")
    return GEditPrompts(sc, pq)


def edit_path(root: Path, item: GEditItem) -> Path:
    """Return the path of the edited image of a case, in the published layout.

    The path is ``<root>/fullset/<task_type>/<language>/<key>.png``.
    """
    return root / "fullset" / item.task_type / item.language / f"{item.key}.png"


def judge_gedit(
    items: Iterable[GEditItem], edits: Path | Callable[[GEditItem], bytes | None], judge: Judge, prompts: GEditPrompts
) -> list[GEditRatings]:
    """Resize every edit to the size of its source image, and rate it with the judge.

    For semantic consistency (SC), the judge sees the source and the edited image. For perceptual quality (PQ), it sees
    only the edited image.
    """
    found: list[GEditRatings] = []
    for item in items:
        edited, digest = _edited(edits, item), hashlib.sha256(item.source).hexdigest()
        if edited is None:
            found.append(GEditRatings(item.task_type, None, None, digest))
            continue
        images = [EncodedImage(data=item.source), EncodedImage(data=resized_to(edited, item.source))]
        sc = _rated(judge(prompts.sc.replace("<instruction>", item.instruction), images))
        pq = _rated(judge(prompts.pq, images[1:]))
        found.append(GEditRatings(item.task_type, sc, pq, digest))
    return found


def gedit_table(ratings: Sequence[GEditRatings], bootstrap: Bootstrap = DEFAULT) -> BenchmarkTable:
    """Return the semantic consistency SC, the perceptual quality PQ and the overall score O = sqrt(SC * PQ).

    The judge gives two ratings for SC and two for PQ. SC and PQ are each the lower of their two ratings. Each metric
    is averaged over the edits of a type and then over the types.

    The published rule excludes missing edits and answers that cannot be parsed. The authors' scripts give some of these
    answers random ratings, but this implementation does not. Our rule scores a missing edit with 0, and excludes and
    counts answers that cannot be parsed. If no edit has ratings, the metrics have no value. The edits of one source image
    are resampled together.
    """
    parsed: list[tuple[GEditRatings, float, float]] = []
    missing = [item for item in ratings if item.missing]
    tally = FailureTally()
    for item in ratings:
        if isinstance(item.sc, Ratings) and isinstance(item.pq, Ratings):
            parsed.append((item, min(item.sc.values), min(item.pq.values)))
            tally.add(None)
        elif not item.missing:
            fault = item.sc if isinstance(item.sc, Unparsed) else item.pq
            assert isinstance(fault, Unparsed)
            tally.add("refused" if isinstance(fault, Refused) else "unparsed", fault.reason)
    columns: dict[str, Callable[[float, float], float]] = {
        "SC": lambda sc, _pq: sc,
        "PQ": lambda _sc, pq: pq,
        "O": lambda sc, pq: math.sqrt(sc * pq),
    }

    def row(name: str, measure: Callable[[float, float], float], kind: str | None) -> BenchmarkRow:
        published = [(item, measure(sc, pq)) for item, sc, pq in parsed if kind in (None, item.task_type)]
        zeros = [(item, 0.0) for item in missing if kind in (None, item.task_type)]
        return BenchmarkRow(
            name=name,
            published=_macro(published, bootstrap),
            ours=_macro([*published, *zeros], bootstrap) if parsed else None,
        )

    rows = [row(f"{name}, mean over types", measure, None) for name, measure in columns.items()]
    rows += [row(f"O: {kind}", columns["O"], kind) for kind in sorted({item.task_type for item, _, _ in parsed})]
    return BenchmarkTable(
        name="GEdit-Bench",
        rows=tuple(rows),
        unparsed=tally.num_failed,
        missing=len(missing),
        num_edits=tally.num_edits,
        failures=tally.causes,
        first_failure=tally.first,
    )


def _rated(answer: str | Refused) -> Ratings | Unparsed:
    return answer if isinstance(answer, Refused) else parse_viescore(answer)


def _macro(values: Sequence[tuple[GEditRatings, float]], bootstrap: Bootstrap) -> Estimate | None:
    if not values:
        return None
    types, sources = [item.task_type for item, _ in values], [item.source for item, _ in values]
    return macro_mean([value for _, value in values], types, bootstrap, sources)


def _edited(edits: Path | Callable[[GEditItem], bytes | None], item: GEditItem) -> bytes | None:
    if callable(edits):
        return edits(item)
    file = edit_path(edits, item)
    return file.read_bytes() if file.is_file() else None
