"""ImgEdit-Bench, basic set (arXiv 2505.20275): a benchmark of image editors with 9 types of edits.

A VLM judge rates three aspects of each edit from 1 to 5. Each type of edit has a rubric, which is the judge's prompt.

The folder of the benchmark contains ``basic_edit.json`` ({key: {id, prompt, edit_type}}), ``prompts.json`` ({edit_type:
rubric}) and a folder with the original images, by default ``singleturn/``. ``id`` is the path of the original image in
this folder. A rubric contains the placeholder ``<edit_prompt>`` for the instruction. Edits are stored as ``<key>.png``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from editr1.data.rules import instruction_fault
from editr1.data.types import EncodedImage, Unparsed
from editr1.data.valid_rows import image_checker
from editr1.evaluation.benchmarks.rows import BenchmarkError, read_json_object
from editr1.evaluation.judge import Judge, Ratings, Refused, parse_imgedit, parse_imgedit_published
from editr1.evaluation.metrics import DEFAULT, Bootstrap, Estimate, macro_mean, mean_estimate
from editr1.evaluation.report.model import BenchmarkRow, BenchmarkTable
from editr1.evaluation.scoring import FailureTally


class ImgEditItem(NamedTuple):
    """One case of ImgEdit-Bench. ``source`` is the path of the source image, and ``key`` identifies the case.

    ``source_sha256`` is the SHA-256 of the source image's file. Files with different names can contain the same image.
    """

    key: str
    edit_type: str
    instruction: str
    source: Path
    source_sha256: str


def load_imgedit(folder: Path, *, originals: str = "singleturn") -> list[ImgEditItem]:
    """Load the cases of ImgEdit-Bench in the order of ``basic_edit.json``.

    ``originals`` is the path of the folder with the original images, relative to ``folder``.

    Raises:
        BenchmarkError: ``basic_edit.json`` does not have the published layout, or an original image is missing or
            violates a rule of :mod:`editr1.data.rules`.
    """
    file = folder / "basic_edit.json"
    entries = read_json_object(file)
    root = (folder / originals).resolve()
    items: list[ImgEditItem] = []
    for key, entry in entries.items():
        if not isinstance(entry, dict):
            raise BenchmarkError(f"{file}, entry {key}: the entry must be an object, got {type(entry).__name__}")
        for name in ("id", "prompt", "edit_type"):
            if not isinstance(entry.get(name), str) or not entry[name].strip():
                raise BenchmarkError(
                    f"{file}, entry {key}: {name} must be a non-empty string, got {entry.get(name)!r:.80}"
                )
        source = (root / entry["id"]).resolve()
        if not source.is_relative_to(root):
            raise BenchmarkError(
                f"{file}, entry {key}: 'id' must be a path in the folder {originals}, but points outside it: {entry['id']!r:.120}"
            )
        if not source.is_file():
            raise BenchmarkError(f"{file}, entry {key}: the original image {source} does not exist; add it")
        if fault := instruction_fault(entry["prompt"]):
            raise BenchmarkError(f"{file}, entry {key}: prompt: {entry['prompt']!r:.80}: {fault}")
        data = source.read_bytes()
        if fault := image_checker().fault(data):
            raise BenchmarkError(f"{file}, entry {key}: id: {source}: {fault}")
        items.append(ImgEditItem(key, entry["edit_type"], entry["prompt"], source, hashlib.sha256(data).hexdigest()))
    return items


def load_imgedit_prompts(folder: Path) -> dict[str, str]:
    """Load the judge's rubrics from ``prompts.json``. Return a mapping from the type of edit to its rubric."""
    return {str(kind): str(rubric) for kind, rubric in read_json_object(folder / "prompts.json").items()}


def judge_imgedit(
    items: Iterable[ImgEditItem],
    edits: Path | Callable[[ImgEditItem], bytes | None],
    judge: Judge,
    prompts: Mapping[str, str],
) -> dict[str, str | Refused | None]:
    """Rate every edit with the judge. Return a mapping from the key of a case to the judge's answer.

    The answer is None if there is no edited image.

    Raises:
        BenchmarkError: The type of a case has no rubric in ``prompts``. Raised before the first request to the judge.
    """
    cases = list(items)
    for item in cases:
        if item.edit_type not in prompts:
            types = ", ".join(sorted(prompts))
            raise BenchmarkError(f"prompts.json has no rubric for type {item.edit_type!r}, only for {types}; add one")
    answers: dict[str, str | Refused | None] = {}
    for item in cases:
        edited = edits(item) if callable(edits) else _read_if_exists(edits / f"{item.key}.png")
        if edited is None:
            answers[item.key] = None
            continue
        prompt = prompts[item.edit_type].replace("<edit_prompt>", item.instruction)
        answers[item.key] = judge(prompt, [EncodedImage(data=item.source.read_bytes()), EncodedImage(data=edited)])
    return answers


def imgedit_table(
    items: Sequence[ImgEditItem], answers: Mapping[str, str | Refused | None], bootstrap: Bootstrap = DEFAULT
) -> BenchmarkTable:
    """Return the mean rating of each type of edit, the mean over types (macro) and the mean over images (micro).

    The rating of an image is the mean of the ratings in the judge's answer. The published rule uses the authors' parser,
    which accepts any number of ratings per answer. It rounds the rating of an image to two decimals and excludes images
    without a rating. Our rule requires three ratings from 1 to 5 per answer. It gives a missing edit the lowest rating,
    1, and excludes and counts answers that cannot be parsed. If no image has ratings, the metrics have no value. The edits
    of one source image are resampled together.
    """
    published: list[tuple[str, float, str]] = []
    ours: list[tuple[str, float, str]] = []
    tally = FailureTally()
    missing = 0
    for item in items:
        answer, source = answers.get(item.key), item.source_sha256
        if answer is None:
            missing += 1
            ours.append((item.edit_type, 1.0, source))
            continue
        if isinstance(answer, Refused):
            tally.add("refused", answer.reason)
            continue
        lenient = parse_imgedit_published(answer)
        if lenient is not None:
            published.append((item.edit_type, lenient, source))
        ratings = parse_imgedit(answer)
        if isinstance(ratings, Unparsed):
            tally.add("unparsed", ratings.reason)
        else:
            tally.add(None)
            ours.append((item.edit_type, _mean(ratings), source))

    def row(name: str, kind: str | None, macro: bool) -> BenchmarkRow:
        sides: list[Estimate | None] = []
        for side in (published, ours if tally.num_failed < tally.num_edits else []):
            selected = [item for item in side if kind in (None, item[0])]
            kinds, values, sources = [k for k, _, _ in selected], [v for _, v, _ in selected], [s for *_, s in selected]
            if not selected:
                sides.append(None)
            elif macro:
                sides.append(macro_mean(values, kinds, bootstrap, sources))
            else:
                sides.append(mean_estimate(values, bootstrap, sources))
        return BenchmarkRow(name=name, published=sides[0], ours=sides[1])

    rows = [row("mean over types (macro)", None, True), row("mean over images (micro)", None, False)]
    rows += [row(kind, kind, False) for kind in sorted({item.edit_type for item in items})]
    return BenchmarkTable(
        name="ImgEdit-Bench",
        rows=tuple(rows),
        unparsed=tally.num_failed,
        missing=missing,
        num_edits=tally.num_edits,
        failures=tally.causes,
        first_failure=tally.first,
    )


def _mean(ratings: Ratings) -> float:
    return sum(ratings.values) / len(ratings.values)


def _read_if_exists(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
