"""The VLM judge of GEdit-Bench and ImgEdit-Bench, and strict parsers for its answers.

GEdit-Bench uses VIEScore (Ku et al., arXiv 2312.14867), which sends two prompts per edit. The prompt for semantic
consistency (SC) contains the source and the edited image, whereas the prompt for perceptual quality (PQ) contains
only the edited image. Each answer is one JSON object with two ratings from 0 to 10. ImgEdit-Bench (Ye et al., arXiv
2505.20275) sends one prompt per edit. The answer contains three labelled ratings from 1 to 5.

If the authors' scripts cannot parse an answer, they use a random rating or drop the answer. The strict parsers in
this module return the reason instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from editr1.config.llm import EndpointConfig, VlmConfig
from editr1.data.types import DataModel, EncodedImage, Unparsed
from editr1.evaluation.scoring import MIN_FAILURES, FailureTally
from editr1.llm.answers import UnreadableAnswer, decode_json, shown


class Refused(Unparsed):
    """Result of a request that the judge's server rejected. It contains the reason; there is no answer to parse."""


Judge = Callable[[str, Sequence[EncodedImage]], str | Refused]
"""Function that sends a prompt, followed by images, to a VLM and returns the text of its answer."""

_FENCE = "```"
_DELIMITER = "||V^=^V||"
_LABEL = re.compile(r"[*\-\s]*[A-Za-z]")
_MAX_DIGITS = 9
"""Maximum number of digits of a rating. Python cannot convert thousands of digits to an integer."""


class Ratings(DataModel):
    """A parsed answer of the judge: the ratings in the order in which they occur, and the reasoning."""

    values: tuple[float, ...]
    reasoning: str = ""


@contextmanager
def vlm_judge(
    endpoints: Mapping[str, EndpointConfig],
    model: VlmConfig,
    parse: Callable[[str], Ratings | Unparsed],
    *,
    cache: Path,
    max_side: int,
    seed: int,
    max_failed_fraction: float = 1.0,
) -> Iterator[Judge]:
    """Open a judge that sends its requests to ``model``. The model's endpoint must be one of ``endpoints``.

    Answers that ``parse`` accepts are cached in the file ``cache``, so that a resumed evaluation repeats only the
    requests without such an answer. Images whose longer side exceeds ``max_side`` pixels are downscaled.

    The judge raises:
        RequestRefused: The server rejected all requests, and there were at least 20.
        TooManyFailures: At least 20 requests failed, and they are a larger fraction than ``max_failed_fraction``.
        LlmError: A request failed for another reason; see :meth:`editr1.llm.vlm.VlmClient.complete`.
    """
    from editr1.llm.errors import RequestRefused
    from editr1.llm.event_loop import new_runner
    from editr1.llm.messages import build_messages
    from editr1.llm.vlm import VlmClient

    with new_runner() as runner:
        client = VlmClient(endpoints, cache)
        tally = FailureTally(max_failed_fraction)

        def is_readable(text: str) -> bool:
            return isinstance(parse(text), Ratings)

        def judge(prompt: str, images: Sequence[EncodedImage]) -> str | Refused:
            chat = build_messages("", [prompt, *images], max_side)
            try:
                (answer,) = runner.run(client.complete(model, chat, seed=seed, is_readable=is_readable))
            except RequestRefused as error:
                tally.add("refused", str(error))
                if tally.num_failed >= MIN_FAILURES and tally.causes["refused"] == tally.num_edits:
                    raise RequestRefused(f"all {tally.num_edits} requests to the judge failed: {error}") from error
                tally.check(MIN_FAILURES)
                return Refused(reason=str(error))
            found = parse(answer.text)
            reason = answer.explain(found.reason) if isinstance(found, Unparsed) else ""
            tally.add("unparsed" if isinstance(found, Unparsed) else None, reason)
            tally.check(MIN_FAILURES)
            return answer.text

        try:
            yield judge
        finally:
            runner.run(client.aclose())


def parse_viescore(text: str, num_ratings: int = 2) -> Ratings | Unparsed:
    """Parse an answer in the format of VIEScore: ``{"score": [a, b], "reasoning": "..."}``.

    The answer must be one JSON object with ``num_ratings`` ratings in [0, 10]. It may be enclosed in a Markdown code
    fence or in VIEScore's ``||V^=^V||`` delimiters. Any other text is an error.
    """
    try:
        answer = decode_json(_unwrapped(text))
    except UnreadableAnswer as error:
        return Unparsed(reason=f"the answer is not a JSON object: {error}")
    if not isinstance(answer, dict) or "score" not in answer:
        return Unparsed(reason="the answer has no field 'score'")
    values = answer["score"]
    if not isinstance(values, list) or len(values) != num_ratings:
        return Unparsed(reason=f"the field 'score' must be a list of {num_ratings} ratings, got {shown(values)}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
            return Unparsed(reason=f"a rating must be a number from 0 to 10, got {shown(value)}")
    reasoning = answer.get("reasoning", "")
    written = reasoning if isinstance(reasoning, str) else shown(reasoning, limit=4000)
    return Ratings(values=tuple(float(v) for v in values), reasoning=written)


def parse_imgedit(text: str) -> Ratings | Unparsed:
    """Parse an answer of ImgEdit-Bench's judge.

    Exactly three lines must have the form "label: rating", with a rating from 1 to 5. All other lines are the reasoning.
    """
    found: list[str] = []
    other: list[str] = []
    for line in text.splitlines():
        if digits := _labelled_digits(line):
            found.append(digits)
        elif line.strip():
            other.append(line.strip())
    if len(found) != 3:
        return Unparsed(reason=f"the answer must have three labelled ratings, got {len(found)}")
    if outside := [digits for digits in found if digits not in ("1", "2", "3", "4", "5")]:
        return Unparsed(reason=f"a rating must be between 1 and 5, got {outside[0]:.20}")
    reasoning = "\n".join(other).encode("utf-8", "backslashreplace").decode()
    return Ratings(values=tuple(float(digits) for digits in found), reasoning=reasoning)


def parse_imgedit_published(text: str) -> float | None:
    """Return the mean rating of an answer, computed as in the script of ImgEdit's authors.

    The mean is taken over all lines of the form "label: digits" and rounded to two decimals. Return None if there is
    no such line, or if the script would fail because one of the numbers is not a decimal number of at most 9 digits.
    """
    parts = [line.strip().split(": ") for line in text.splitlines()]
    ratings = [p[1] for p in parts if len(p) == 2 and p[1].isdigit()]
    if not ratings or not all(digits.isdecimal() and len(digits) <= _MAX_DIGITS for digits in ratings):
        return None
    return round(sum(map(int, ratings)) / len(ratings), 2)


def _unwrapped(text: str) -> str:
    """Return ``text`` without a surrounding Markdown code fence and without VIEScore's delimiters."""
    inner = text.strip()
    if len(inner) >= 2 * len(_FENCE) and inner.startswith(_FENCE) and inner.endswith(_FENCE):
        language, newline, body = inner.removesuffix(_FENCE).removeprefix(_FENCE).partition("\n")
        if newline and language.strip() in ("", "json"):
            inner = body.strip()
    if len(inner) >= 2 * len(_DELIMITER) and inner.startswith(_DELIMITER) and inner.endswith(_DELIMITER):
        inner = inner.removeprefix(_DELIMITER).removesuffix(_DELIMITER).strip()
    return inner


def _labelled_digits(line: str) -> str:
    """Return the digits of a line "label: digits" without leading zeros, or an empty string for any other line.

    The line may contain Markdown list markers and asterisks for bold text.
    """
    label, _, rest = line.partition(":")
    digits = rest.strip().lstrip("*").lstrip().rstrip("*").rstrip()
    if not (_LABEL.match(label) and digits.isascii() and digits.isdigit()):
        return ""
    return digits.lstrip("0") or "0"
