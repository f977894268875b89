"""TIGER's EditReward-Bench (arXiv 2509.26346): 2, 3 or 4 edits of one case, ranked by people.

Rows are pairwise: id, dataset ("2pair", "3pair", "4pair"), instruction, source_image, candidate_1, candidate_2,
ranking ("B>A", "A=B"), comparison_type ("AvsB"). The part of an id before its first "_" names the group.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from editr1.evaluation.benchmarks.rating import Rate, RatedEdit
from editr1.evaluation.benchmarks.rows import BenchmarkError, Row, picture, read_rows, text
from editr1.evaluation.metrics import (
    DEFAULT,
    Bootstrap,
    Floats,
    macro_mean,
    mean_estimate,
    pair_credit,
)
from editr1.evaluation.report.model import BenchmarkRow, BenchmarkTable

_COLUMNS = ("id", "dataset", "instruction", "source_image", "candidate_1", "candidate_2", "ranking", "comparison_type")
_KINDS = {"2pair": 2, "3pair": 3, "4pair": 4}
_LETTERS = "ABCD"


@dataclass
class TigerGroup:
    """The edits of one case. ``human[(a, b)]`` is 1 where a is better than b, -1 where worse, 0 for a tie; a < b."""

    group_id: str
    k: int
    instruction: str
    source: bytes
    edits: dict[str, bytes] = field(default_factory=dict)
    human: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def letters(self) -> str:
        """The names of the edits: "AB", "ABC" or "ABCD"."""
        return _LETTERS[: self.k]


def load_tiger(path: Path) -> list[TigerGroup]:
    """Groups of a local folder or Parquet file, in order of their first row.

    Raises:
        BenchmarkError: another layout, a group with comparisons missing, or a ranking that says nothing of its pair.
    """
    groups: dict[tuple[int, str], TigerGroup] = {}
    for row in read_rows(path, _COLUMNS):
        kind = text(row, "dataset")
        if kind not in _KINDS:
            raise BenchmarkError(f"{row.where}: dataset {kind!r} is unknown; allowed: {', '.join(_KINDS)}")
        k, name = _KINDS[kind], text(row, "id")
        first, second = _letters(row, k)
        group_id = name if k == 2 else name.split("_")[0]
        group = groups.setdefault(
            (k, group_id), TigerGroup(group_id, k, text(row, "instruction"), picture(row, "source_image"))
        )
        group.edits[first] = picture(row, "candidate_1")
        group.edits[second] = picture(row, "candidate_2")
        vote = _vote(row, first, second)
        low, high = sorted((first, second))
        if (low, high) in group.human:
            raise BenchmarkError(f"{row.where}: {low} and {high} of group {group_id} are compared twice")
        group.human[(low, high)] = vote if (low, high) == (first, second) else -vote
    for group in groups.values():
        wanted = group.k * (group.k - 1) // 2
        if len(group.human) != wanted:
            raise BenchmarkError(
                f"{path}: group {group.group_id} of {group.k}: {len(group.human)} of {wanted} comparisons"
            )
        if group.k > 2 and 0 in group.human.values():
            raise BenchmarkError(f"{path}: group {group.group_id} of {group.k} has a tie, which a ranking cannot hold")
    return list(groups.values())


def rate_tiger(groups: Iterable[TigerGroup], rate: Rate) -> list[dict[str, float | None]]:
    """Scores of each group's edits by letter, one call of ``rate`` a group."""
    found = []
    for group in groups:
        edits = [RatedEdit(group.source, group.edits[letter], group.instruction) for letter in group.letters]
        found.append(dict(zip(group.letters, rate(edits), strict=True)))
    return found


def tuned_epsilon(human: Floats, gaps: Floats) -> tuple[float, float]:
    """The tie threshold with the best accuracy on these very pairs, and that accuracy: the authors' way.

    ``human`` in {1, 0, -1}, ``gaps`` = score A - score B, both (n,). Candidates are 0 and every |gap|; the lowest of
    equally good ones wins. A pair is right iff both say tie (|gap| <= epsilon), or the gap exceeds epsilon in the
    direction that people chose.
    """
    candidates = np.unique(np.concatenate([[0.0], np.abs(gaps)]))
    accuracy = np.array([_tie_credit(human, gaps, epsilon).mean() for epsilon in candidates])
    best = int(accuracy.argmax())
    return float(candidates[best]), float(accuracy[best])


def tiger_table(
    groups: Sequence[TigerGroup],
    scores: Sequence[Mapping[str, float | None]],
    *,
    epsilon: float | None = None,
    bootstrap: Bootstrap = DEFAULT,
) -> BenchmarkTable:
    """Accuracy at K = 2, 3 and 4, and overall weighted by groups.

    Published (EditReward/evaluate/eval_bench.py): K = 3 and 4 by the order of a reversed ascending sort (equal scores
    fall to the later letter); K = 2 with the epsilon tuned on the set itself, in the overall row for people's ties
    alone: a decided pair counts there by that sort. Ours: ``epsilon`` as fixed beforehand, or, when None, the K = 2 pairs
    are halved by the digest of their ids and each half is judged by the other's epsilon; at K = 3 and 4 equal scores
    are wrong. A group with a missing score is wrong under "published" and left out and counted under ours.
    """
    whole = [
        all(score.get(letter) is not None for letter in group.letters)
        for group, score in zip(groups, scores, strict=True)
    ]
    rows: list[BenchmarkRow] = []
    published_all: list[float] = []
    ours_all: list[float] = []
    notes: list[str] = []
    for k in (2, 3, 4):
        some = [(g, s) for g, s, ok in zip(groups, scores, whole, strict=True) if g.k == k and ok]
        lost = sum(g.k == k and not ok for g, ok in zip(groups, whole, strict=True))
        if not some:
            wrong = [0.0] * lost
            published_all += wrong
            rows.append(BenchmarkRow(name=f"K = {k}", published=mean_estimate(wrong, bootstrap) if wrong else None))
            continue
        if k == 2:
            human = np.array([float(g.human[("A", "B")]) for g, _ in some])
            gaps = np.array([_gap(s, "A", "B") for _, s in some])
            tuned, _ = tuned_epsilon(human, gaps)
            published = list(_tie_credit(human, gaps, tuned))
            ranked = [float(_order(s, g.letters) == _human_order(g)) for g, s in some]
            strict = list(np.where(human == 0, published, ranked))
            ours, said = _held_out(human, gaps, [g.group_id for g, _ in some], epsilon)
            notes.append(f"Epsilon at K = 2: published {tuned:g}, tuned on the set itself; ours {said}.")
        else:
            published = strict = [float(_order(s, g.letters) == _human_order(g)) for g, s in some]
            ours = [float(_strict_order(s, g) and p == 1.0) for (g, s), p in zip(some, published, strict=True)]
        published = published + [0.0] * lost
        published_all += strict + [0.0] * lost
        ours_all += ours
        rows.append(
            BenchmarkRow(
                name=f"K = {k}", published=mean_estimate(published, bootstrap), ours=mean_estimate(ours, bootstrap)
            )
        )
    rows.append(
        BenchmarkRow(
            name="overall, weighted by groups",
            published=mean_estimate(published_all, bootstrap) if published_all else None,
            ours=mean_estimate(ours_all, bootstrap) if ours_all else None,
        )
    )
    rows += _pair_rows(groups, scores, whole, bootstrap)
    return BenchmarkTable(
        name="TIGER's EditReward-Bench",
        rows=tuple(rows),
        scale=100.0,
        unit="%",
        missing=whole.count(False),
        notes=tuple(notes),
    )


def _tie_credit(human: Floats, gaps: Floats, epsilon: float) -> Floats:
    tie = np.abs(gaps) <= epsilon
    return np.where(human == 0, tie, ~tie & (human * gaps > 0)).astype(np.float64)


def _held_out(human: Floats, gaps: Floats, ids: Sequence[str], epsilon: float | None) -> tuple[list[float], str]:
    if epsilon is not None:
        return list(_tie_credit(human, gaps, epsilon)), f"{epsilon:g}, fixed beforehand"
    first = np.array([hashlib.sha256(name.encode()).digest()[0] % 2 == 0 for name in ids])
    if first.all() or not first.any():
        return list(_tie_credit(human, gaps, 0.0)), "0, as the set is too small to be halved"
    credit = np.empty(len(ids))
    used = []
    for mine in (first, ~first):
        other, _ = tuned_epsilon(human[~mine], gaps[~mine])
        credit[mine] = _tie_credit(human[mine], gaps[mine], other)
        used.append(other)
    return list(credit), f"{used[0]:g} and {used[1]:g}, each from the other half"


def _pair_rows(
    groups: Sequence[TigerGroup],
    scores: Sequence[Mapping[str, float | None]],
    whole: Sequence[bool],
    bootstrap: Bootstrap,
) -> list[BenchmarkRow]:
    won: list[float] = []
    lost: list[float] = []
    kinds: list[str] = []
    for group, score, ok in zip(groups, scores, whole, strict=True):
        for (a, b), vote in group.human.items():
            if ok and vote:
                better, worse = (a, b) if vote > 0 else (b, a)
                won.append(_number(score, better))
                lost.append(_number(score, worse))
                kinds.append(str(group.k))
    if not won:
        return [BenchmarkRow(name="all decided pairs")]
    strict, half = pair_credit(won, lost, "strict"), pair_credit(won, lost, "half_credit")
    return [
        BenchmarkRow(name="all decided pairs, strict", ours=mean_estimate(strict, bootstrap)),
        BenchmarkRow(name="all decided pairs, half credit", ours=mean_estimate(half, bootstrap)),
        BenchmarkRow(name="decided pairs, half credit, mean over K", ours=macro_mean(half, kinds, bootstrap)),
    ]


def _number(score: Mapping[str, float | None], letter: str) -> float:
    value = score[letter]
    assert value is not None
    return value


def _gap(score: Mapping[str, float | None], a: str, b: str) -> float:
    return _number(score, a) - _number(score, b)


def _order(score: Mapping[str, float | None], letters: str) -> str:
    rising = np.argsort([_number(score, letter) for letter in letters], kind="stable")
    return "".join(letters[i] for i in rising[::-1])


def _strict_order(score: Mapping[str, float | None], group: TigerGroup) -> bool:
    return len({_number(score, letter) for letter in group.letters}) == group.k


def _human_order(group: TigerGroup) -> str:
    """Best first, by wins; comparisons that go in a circle give an order that no ranking matches."""
    wins = dict.fromkeys(group.letters, 0)
    for (a, b), vote in group.human.items():
        wins[a if vote > 0 else b] += 1
    if len(set(wins.values())) != group.k:
        return "circle"
    return "".join(sorted(group.letters, key=lambda letter: -wins[letter]))


def _letters(row: Row, k: int) -> tuple[str, str]:
    value = text(row, "comparison_type")
    match = re.fullmatch(r"([A-D])\s*vs\s*([A-D])", value)
    if match is None or match[1] == match[2] or not {match[1], match[2]} <= set(_LETTERS[:k]):
        raise BenchmarkError(
            f"{row.where}: comparison_type must be like 'AvsB' with letters of {_LETTERS[:k]}, got {value!r}"
        )
    return match[1], match[2]


def _vote(row: Row, first: str, second: str) -> int:
    """1 where ``first`` is better, -1 where ``second`` is, 0 for "A=B", "A=B=Good" and "A=B=Bad"."""
    value = text(row, "ranking").replace(" ", "")
    match = re.fullmatch(r"([A-D])([<>=])([A-D])(=Good|=Bad)?", value)
    if match is None or {match[1], match[3]} != {first, second} or (match[4] and match[2] != "="):
        raise BenchmarkError(f"{row.where}: ranking must rank {first} and {second}, got {value!r:.40}")
    if match[2] == "=":
        return 0
    better = match[1] if match[2] == ">" else match[3]
    return 1 if better == first else -1
