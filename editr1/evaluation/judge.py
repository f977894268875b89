"""What a VLM judge answers on GEdit-Bench and ImgEdit-Bench, parsed strictly: marks, or the reason why there are none.

GEdit-Bench is judged by VIEScore (Ku et al., arXiv 2312.14867): SC sees both pictures, PQ the edit alone, and each
answers one JSON object with two marks from 0 to 10. ImgEdit-Bench (Ye et al., arXiv 2505.20275) answers three labelled
marks from 1 to 5. The public scripts guess at random or drop what they cannot parse; here it is reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from editr1.config.llm import EndpointConfig, VlmConfig
from editr1.data.types import DataModel, EncodedImage, Unparsed

Judge = Callable[[str, Sequence[EncodedImage]], str]
"""Sends a prompt and images, in this order, to a VLM and returns the text of its answer."""

_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)
_DELIMITED = re.compile(r"\A\|\|V\^=\^V\|\|(.*)\|\|V\^=\^V\|\|\Z", re.DOTALL)
_LABELLED = re.compile(r"\A\s*[*\-\s]*([A-Za-z][^:]*?)\s*:\s*\**\s*([0-9]+)\s*\**\s*\Z")


class Marks(DataModel):
    """The marks of one answer, in its order, and its reasoning."""

    values: tuple[float, ...]
    reasoning: str = ""


@contextmanager
def vlm_judge(
    endpoints: Mapping[str, EndpointConfig], model: VlmConfig, *, cache: Path, max_side: int, seed: int
) -> Iterator[Judge]:
    """Open a judge that sends requests to ``model``, one of the models behind ``endpoints``.

    Answers are stored in the file ``cache``, so that a continued evaluation sends no request twice. Images with a side
    above ``max_side`` pixels are scaled down. A request that the endpoint refuses yields an answer that does not parse.
    """
    from editr1.llm.errors import RequestRefused
    from editr1.llm.event_loop import new_runner
    from editr1.llm.messages import build_messages
    from editr1.llm.vlm import VlmClient

    with new_runner() as runner:
        client = VlmClient(endpoints, cache)

        def judge(prompt: str, images: Sequence[EncodedImage]) -> str:
            chat = build_messages("", [prompt, *images], max_side)
            try:
                return runner.run(client.ask(model, chat, seed=seed))[0]
            except RequestRefused as error:
                return f"(refused: {error})"

        try:
            yield judge
        finally:
            runner.run(client.aclose())


def parse_viescore(text: str, marks: int = 2) -> Marks | Unparsed:
    """One JSON object ``{"score": [a, b], "reasoning": "..."}`` with ``marks`` numbers in [0, 10].

    The object may stand in a Markdown fence or between VIEScore's ``||V^=^V||``; nothing else may stand beside it.
    """
    inner = text.strip()
    for wrapper in (_FENCE, _DELIMITED):
        if match := wrapper.match(inner):
            inner = match.group(1).strip()
    try:
        answer = json.loads(inner)
    except ValueError as error:
        return Unparsed(reason=f"no JSON object: {error}")
    if not isinstance(answer, dict) or "score" not in answer:
        return Unparsed(reason="the JSON has no field 'score'")
    values = answer["score"]
    if not isinstance(values, list) or len(values) != marks:
        return Unparsed(reason=f"'score' must be a list of {marks} marks, got {values!r:.80}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
            return Unparsed(reason=f"a mark must be a number from 0 to 10, got {value!r:.80}")
    return Marks(values=tuple(float(v) for v in values), reasoning=str(answer.get("reasoning", "")))


def parse_imgedit(text: str) -> Marks | Unparsed:
    """Exactly three lines "label: mark" with whole marks from 1 to 5; other lines are the reasoning."""
    found: list[int] = []
    other: list[str] = []
    for line in text.splitlines():
        if match := _LABELLED.match(line):
            found.append(int(match.group(2)))
        elif line.strip():
            other.append(line.strip())
    if len(found) != 3:
        return Unparsed(reason=f"three labelled marks are needed, got {len(found)}")
    if outside := [mark for mark in found if not 1 <= mark <= 5]:
        return Unparsed(reason=f"a mark must lie between 1 and 5, got {outside[0]}")
    return Marks(values=tuple(float(mark) for mark in found), reasoning="\n".join(other))


def parse_imgedit_published(text: str) -> float | None:
    """The mean as ImgEdit's own script takes it: all lines "label: digits", however many, rounded to two decimals."""
    parts = [line.strip().split(": ") for line in text.splitlines()]
    marks = [int(p[1]) for p in parts if len(p) == 2 and p[1].isdigit()]
    return round(sum(marks) / len(marks), 2) if marks else None
