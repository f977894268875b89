"""Rows, pairs and traces of very unequal length for the comparison of gradients."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from editr1.data.images import encode_png
from editr1.data.tables import write_table
from editr1.data.types import Candidate, Category, EditCase, EncodedImage, PreferencePair, Principle, Quadruple, SftRow
from editr1.verifier.trace import format_trace
from tests.unit.verifier.gradients import Traces, Written

QUESTIONS = (
    Principle(question="top-left is red square?", category=Category.FOLLOW),
    Principle(question="background kept?", category=Category.KEEP),
)


def trace(score: float, length: int, bits: tuple[int, int] = (1, 0)) -> Written:
    """Return a valid trace with ``length`` sentences of reasoning."""
    return Written(format_trace(" ".join(["picture looks clean, yes;"] * length), QUESTIONS, bits, score))


def cut(length: int) -> Written:
    """Return a trace that was cut off before its score."""
    return Written(" ".join(["picture looks clean, yes;"] * length), ended=False)


TRACES: Traces = (
    ((trace(8.0, 0), trace(3.0, 9, (0, 0))), (trace(5.0, 1), trace(2.0, 4, (1, 1)))),
    ((trace(9.0, 6), cut(3)), (trace(4.0, 2), trace(4.5, 7))),  # one trace was cut off
    ((trace(7.0, 2), trace(6.0, 5)), (cut(1), cut(8))),  # no trace of the loser has a score: no signal
    ((trace(5.0, 3), trace(5.0, 0)), (trace(5.0, 9), trace(5.0, 1))),  # ties only: no signal
    ((trace(9.0, 1), trace(8.0, 8)), (trace(1.0, 4), trace(2.0, 0))),  # always right: no signal
    ((trace(6.0, 10), trace(2.0, 1, (0, 1))), (trace(6.0, 0), trace(3.0, 5, (0, 0)))),  # with a tie
)


def image(rng: random.Random) -> EncodedImage:
    return EncodedImage(data=encode_png(Image.new("RGB", (32, 32), tuple(rng.randrange(256) for _ in range(3)))))


def case(rng: random.Random, number: int) -> EditCase:
    return EditCase(
        case_id=f"case-{number}", source=image(rng), instruction="remove the top-left red square", principles=QUESTIONS
    )


def write_gradient_rows(folder: Path, count: int = 24) -> Path:
    """Write SFT rows whose traces have very different lengths."""
    rng = random.Random(0)
    rows = [
        SftRow(
            quadruple=Quadruple(
                case=case(rng, number), candidate=Candidate(candidate_id=f"e{number}", editor="a", image=image(rng))
            ),
            trace=trace(float(number % 11), 5 * (number % 3), (number % 2, 1)).text,
        )
        for number in range(count)
    ]
    write_table(folder / "rows.parquet", rows, SftRow)
    return folder / "rows.parquet"


def write_gradient_pairs(folder: Path) -> Path:
    """Write one preference pair per entry of ``TRACES``."""
    rng = random.Random(1)
    pairs = [
        PreferencePair(
            pair_id=f"pair-{number}",
            case=case(rng, number),
            winner=Candidate(candidate_id=f"w{number}", editor="a", image=image(rng)),
            loser=Candidate(candidate_id=f"l{number}", editor="b", image=image(rng)),
        )
        for number in range(len(TRACES))
    ]
    write_table(folder / "pairs.parquet", pairs, PreferencePair)
    return folder / "pairs.parquet"
