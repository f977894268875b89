"""The VLM judge of GEdit-Bench and ImgEdit-Bench, and strict parsers for its answers.

GEdit-Bench uses VIEScore (Ku et al., arXiv 2312.14867): one prompt for semantic consistency (SC), with the source and
the edited image, and one for perceptual quality (PQ), with only the edited image. Each answer is one JSON object with
two ratings from 0 to 10. ImgEdit-Bench (Ye et al., arXiv 2505.20275) asks for three
labelled ratings from 1 to 5. If the public scripts cannot parse an answer, they use a random rating or drop the answer;
these parsers return the reason instead.
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
"""Function that sends a prompt, followed by images, to a VLM and returns the text of its answer."""

_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)
_DELIMITED = re.compile(r"\A\|\|V\^=\^V\|\|(.*)\|\|V\^=\^V\|\|\Z", re.DOTALL)
_LABELLED = re.compile(r"\A\s*[*\-\s]*([A-Za-z][^:]*?)\s*:\s*\**\s*([0-9]+)\s*\**\s*\Z")


class Ratings(DataModel):
    """The ratings in one answer of the judge, in order, and the reasoning in the answer."""

    values: tuple[float, ...]
    reasoning: str = ""


@contextmanager
def vlm_judge(
    endpoints: Mapping[str, EndpointConfig], model: VlmConfig, *, cache: Path, max_side: int, seed: int
) -> Iterator[Judge]:
    """Open a judge that sends requests to ``model``, one of the models behind ``endpoints``.

    Answers are cached in the file ``cache``, so that a resumed evaluation repeats no request. Images with a side above
    ``max_side`` pixels are downscaled. If the server refuses a request, the judge returns a text that the parsers
    reject.
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
                return runner.run(client.complete(model, chat, seed=seed))[0]
            except RequestRefused as error:
                return f"(refused: {error})"

        try:
            yield judge
        finally:
            runner.run(client.aclose())


def parse_viescore(text: str, num_ratings: int = 2) -> Ratings | Unparsed:
    """Parse one JSON object ``{"score": [a, b], "reasoning": "..."}`` with ``num_ratings`` numbers in [0, 10].

    The object may be in a Markdown code fence or between VIEScore's ``||V^=^V||`` delimiters, without any other text.
    """
    inner = text.strip()
    for wrapper in (_FENCE, _DELIMITED):
        if match := wrapper.match(inner):
            inner = match.group(1).strip()
    try:
        answer = json.loads(inner)
    except ValueError as error:
        return Unparsed(reason=f"the answer is not a JSON object: {error}")
    if not isinstance(answer, dict) or "score" not in answer:
        return Unparsed(reason="the answer has no field 'score'")
    values = answer["score"]
    if not isinstance(values, list) or len(values) != num_ratings:
        return Unparsed(reason=f"'score' must be a list of {num_ratings} ratings, got {values!r:.80}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
            return Unparsed(reason=f"a rating must be a number from 0 to 10, got {value!r:.80}")
    return Ratings(values=tuple(float(v) for v in values), reasoning=str(answer.get("reasoning", "")))


def parse_imgedit(text: str) -> Ratings | Unparsed:
    """Parse an answer with exactly three lines "label: rating", from 1 to 5. The other lines are the reasoning."""
    found: list[int] = []
    other: list[str] = []
    for line in text.splitlines():
        if match := _LABELLED.match(line):
            found.append(int(match.group(2)))
        elif line.strip():
            other.append(line.strip())
    if len(found) != 3:
        return Unparsed(reason=f"the answer must have three labelled ratings, got {len(found)}")
    if outside := [rating for rating in found if not 1 <= rating <= 5]:
        return Unparsed(reason=f"a rating must be between 1 and 5, got {outside[0]}")
    return Ratings(values=tuple(float(rating) for rating in found), reasoning="\n".join(other))


def parse_imgedit_published(text: str) -> float | None:
    """Return the mean rating as ImgEdit's script computes it: over all lines "label: digits", rounded to 2 decimals.

    Return None if there is no such line.
    """
    parts = [line.strip().split(": ") for line in text.splitlines()]
    ratings = [int(p[1]) for p in parts if len(p) == 2 and p[1].isdigit()]
    return round(sum(ratings) / len(ratings), 2) if ratings else None
