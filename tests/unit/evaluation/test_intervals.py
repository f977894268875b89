"""Coverage of the intervals: what belongs to one case, edit or source image is resampled together.

Each simulation draws data with a known true value many times, and counts how often the 95 % interval contains it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from editr1.data.types import Category, EncodedImage, PreferencePair, Principle, Scored, ScoreFailure
from editr1.evaluation.benchmarks import GEditRatings, ImgEditItem, TigerGroup, gedit_table, imgedit_table, tiger_table
from editr1.evaluation.benchmarks.editscore import Comparison, EditScoreRow, editscore_table
from editr1.evaluation.editor_eval import EditRow, editor_metrics
from editr1.evaluation.judge import Ratings
from editr1.evaluation.metrics import Bootstrap, Estimate, macro_mean, mean_estimate, pair_accuracy, ratio_estimate
from editr1.evaluation.pairs import PairScores, compare_verifiers, verdict_accuracy
from editr1.reproduce.nested_bootstrap import nested_estimate
from tests.unit.evaluation import examples

BOOTSTRAP = Bootstrap(samples=300)
CASES, EDITS = 50, 4
RANKED = list(combinations(range(EDITS), 2))
QUESTIONS = (Principle(question="kept?", category=Category.KEEP),)


def image(number: int) -> EncodedImage:
    return examples.image(number % 256, number // 256, 0)


def ranked_pairs(sources: int = CASES) -> tuple[PreferencePair, ...]:
    """Return the six pairs of each of ``CASES`` rankings of four edits."""
    cases = [examples.case_of(f"case{c}", image(c % sources), QUESTIONS) for c in range(CASES)]
    edits = [image(1000 + e) for e in range(EDITS)]
    return tuple(
        examples.pair_of(f"{case.case_id}-{a}{b}", case, edits[a], edits[b]) for case in cases for a, b in RANKED
    )


def scored(score: float, parsed: int = 1, unparsed: int = 0) -> Scored:
    return examples.scored_by([examples.verdict(score, [1])] * parsed, ["no score"] * unparsed)


def ranking_scores(rng: np.random.Generator, cases: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the better and the worse edit of every pair. The noise is that of the case."""
    truth = rng.normal(0, 1, (cases, EDITS))
    said = np.clip(5 + truth + rng.normal(0, 1, (cases, EDITS)) * rng.gamma(1.0, 1.5, (cases, 1)), 0, 10)
    won = np.empty((cases, len(RANKED)))
    lost = np.empty_like(won)
    for k, (a, b) in enumerate(RANKED):
        first = truth[:, a] > truth[:, b]
        won[:, k] = np.where(first, said[:, a], said[:, b])
        lost[:, k] = np.where(first, said[:, b], said[:, a])
    return won.ravel(), lost.ravel()


def coverage(measure: Callable[[np.random.Generator], Estimate], true: float, repeats: int = 150) -> float:
    found = [measure(np.random.default_rng([7, i])) for i in range(repeats)]
    return float(np.mean([item.low <= true <= item.high for item in found]))


@pytest.mark.parametrize("one_source", [False, True])
def test_accuracy_interval_of_rankings_covers_the_true_accuracy(one_source: bool) -> None:
    pairs = ranked_pairs(sources=1 if one_source else CASES)
    won, lost = ranking_scores(np.random.default_rng(0), 60_000)

    def measure(rng: np.random.Generator) -> Estimate:
        sides = [tuple(scored(float(v)) for v in side) for side in ranking_scores(rng, CASES)]
        return PairScores(pairs, *sides).accuracy(BOOTSTRAP).strict

    assert measure(np.random.default_rng(1)).groups == CASES
    assert 0.89 <= coverage(measure, float((won > lost).mean()), 120) <= 0.99


def test_parse_rate_interval_covers_the_true_rate_if_traces_of_an_edit_fail_together() -> None:
    pairs = tuple(pair for pair in ranked_pairs() if pair.pair_id.endswith("-01"))

    def outcome(rng: np.random.Generator) -> Scored | ScoreFailure:
        parsed = int(rng.binomial(8, rng.beta(0.5, 0.5)))
        if not parsed:
            return ScoreFailure(cause="unparsed", detail="no score")
        return scored(5.0, parsed, 8 - parsed)

    def measure(rng: np.random.Generator) -> Estimate:
        sides = [tuple(outcome(rng) for _ in pairs) for _ in range(2)]
        found = PairScores(pairs, *sides, num_traces=8).parsed(BOOTSTRAP)
        assert found is not None and found.n == 16 * CASES
        return found

    assert 0.90 <= coverage(measure, 0.5) <= 0.99


@pytest.mark.parametrize("shared", ["source", "edit"])
def test_editscore_interval_covers_the_true_accuracy_if_rows_share_a_source_or_an_edit(shared: str) -> None:
    rows = [
        Comparison((f"{c}-{a}", f"{c}-{b}"), "type", "overall", f"source{c}" if shared == "source" else "")
        for c in range(CASES)
        for a, b in RANKED
    ]
    won, lost = ranking_scores(np.random.default_rng(0), 60_000)

    def measure(rng: np.random.Generator) -> Estimate:
        truth = rng.normal(0, 1, (CASES, EDITS))
        said = 5 + truth + rng.normal(0, 1, (CASES, EDITS)) * rng.gamma(1.0, 1.5, (CASES, 1))
        ranked = np.argsort(-truth, axis=1)
        scores = {f"{c}-{e}": float(np.clip(said[c, ranked[c, e]], 0, 10)) for c in range(CASES) for e in range(EDITS)}
        row = next(row for row in editscore_table(rows, scores, BOOTSTRAP).rows if row.name == "overall")
        assert row.published is not None and row.ours is not None
        assert (row.ours.groups, row.published.groups, row.ours.n) == (CASES, CASES, 6 * CASES)
        return row.ours

    assert 0.89 <= coverage(measure, float((won > lost).mean()), 120) <= 0.99


def test_macro_interval_covers_the_true_mean_if_groups_span_types() -> None:
    types = ["a", "b", "b", "a"] * CASES
    groups = [f"g{c}" for c in range(CASES) for _ in range(4)]

    def measure(rng: np.random.Generator) -> Estimate:
        values = rng.normal(0, 1, (CASES, 1)) + rng.normal(0, 0.3, (CASES, 4))
        return macro_mean(values.ravel(), types, BOOTSTRAP, groups)

    assert 0.90 <= coverage(measure, 0.0) <= 0.99


def test_every_type_occurs_in_every_resample_of_groups() -> None:
    types = ["a", "a", "b", "c", "c"]
    found = macro_mean([1.0, 0.0, 1.0, 0.5, 0.5], types, BOOTSTRAP, ["g", "h", "i", "j", "j"])
    assert (found.value, found.groups) == (pytest.approx(2 / 3), 4)
    assert (found.low, found.high) == (pytest.approx(1.5 / 3), pytest.approx(2.5 / 3))


def test_intervals_over_seeds_resample_the_cases_of_a_seed() -> None:
    names = [f"case{c}" for c in range(CASES) for _ in range(6)]

    def measure(rng: np.random.Generator) -> Estimate:
        seeds = [np.repeat(rng.normal(0, 1, CASES), 6) for _ in range(6)]
        return nested_estimate(seeds, BOOTSTRAP, [names] * 6)

    assert 0.90 <= coverage(measure, 0.0, 100) <= 1.0
    seeds = [np.repeat(np.random.default_rng(3).normal(0, 1, CASES), 6)]
    grouped, single = nested_estimate(seeds, BOOTSTRAP, [names]), nested_estimate(seeds, BOOTSTRAP)
    assert (grouped.n, grouped.groups, single.groups) == (300, CASES, None)
    assert 2.0 < (grouped.high - grouped.low) / (single.high - single.low) < 3.0


def test_metrics_of_verifiers_resample_source_images() -> None:
    pairs = ranked_pairs(sources=20)
    won, lost = ranking_scores(np.random.default_rng(2), CASES)
    before = PairScores(pairs, tuple(scored(float(v)) for v in won), tuple(scored(float(v)) for v in lost))
    after = PairScores(pairs, before.losers, before.winners)
    truth = lambda _case, _image: SimpleNamespace(verdicts=(1,))  # noqa: E731
    gain = compare_verifiers(after, before, BOOTSTRAP)
    parsed = before.parsed(BOOTSTRAP)
    assert gain.half_credit is not None and gain.ties is not None and parsed is not None
    estimates = [before.accuracy(BOOTSTRAP).ties, gain.half_credit, gain.ties, parsed]
    estimates += verdict_accuracy(before, truth, BOOTSTRAP).values()
    assert [item.groups for item in estimates] == [20] * 5


def test_metrics_of_editors_resample_source_images() -> None:
    rng = np.random.default_rng(4)
    cases = [examples.case_of(f"case{c}", image(c % 20), QUESTIONS) for c in range(60)]
    before, after = (
        [EditRow(case, b"png", scored(float(score))) for case, score in zip(cases, rng.random(60) * 10, strict=True)]
        for _ in range(2)
    )
    found = editor_metrics(before, after, "verifier", bootstrap=BOOTSTRAP)
    for item in (found.before.score, found.after.score, found.gain.score, found.gsb):
        assert item is not None and (item.n, item.groups) == (60, 20)


def test_metrics_of_public_sets_resample_source_images() -> None:
    rng = np.random.default_rng(5)
    groups = [
        TigerGroup(str(g), 3, "i", f"source{g // 3}".encode(), {}, {("A", "B"): 1, ("A", "C"): 1, ("B", "C"): 1})
        for g in range(60)
    ]
    scores = [dict(zip("ABC", rng.random(3).tolist(), strict=True)) for _ in groups]
    tiger = {row.name: row for row in tiger_table(groups, scores, bootstrap=BOOTSTRAP).rows}
    assert tiger["K = 3"].published is not None and tiger["K = 3"].published.groups == 20
    pairs = tiger["all pairs with a preference, strict"].ours
    assert pairs is not None and (pairs.n, pairs.groups) == (180, 20)

    ratings = [
        GEditRatings(
            kind, Ratings(values=(float(rng.integers(0, 11)),) * 2), Ratings(values=(5.0, 5.0)), f"source{i // 3}"
        )
        for i, kind in enumerate(["ps_human", "text_change", "style_change"] * 20)
    ]
    gedit = gedit_table(ratings, BOOTSTRAP).rows[0].ours
    assert gedit is not None and (gedit.n, gedit.groups) == (60, 20)

    items = [ImgEditItem(str(i), "add", "i", Path(f"{i}.png"), f"source{i // 3}") for i in range(60)]
    answers = {item.key: f"Prompt Compliance: {rng.integers(1, 6)}\nVisual: 3\nPhysical: 3" for item in items}
    imgedit = imgedit_table(items, answers, BOOTSTRAP).rows[1].published
    assert imgedit is not None and (imgedit.n, imgedit.groups) == (60, 20)


def test_rows_with_images_are_grouped_by_source_like_rows_without() -> None:
    rows = [
        EditScoreRow((f"{i}a", f"{i}b"), "i", f"source{i // 2}".encode(), (b"", b""), "type", "overall")
        for i in range(10)
    ]
    scores = {key: float(i) for i, row in enumerate(rows) for key in row.keys}
    found = next(row for row in editscore_table(rows, scores, BOOTSTRAP).rows if row.name == "overall").ours
    assert found is not None and (found.n, found.groups) == (10, 5)


def test_groups_of_one_item_give_the_interval_without_groups() -> None:
    data = np.random.default_rng(6).random(80)
    names = [str(i) for i in range(80)]
    assert mean_estimate(data, BOOTSTRAP, names) == mean_estimate(data, BOOTSTRAP)
    assert mean_estimate(data, BOOTSTRAP, ["one"] * 80) == mean_estimate(data, BOOTSTRAP)
    with pytest.raises(ValueError, match="one name per observation, got 3 names for 80 observations"):
        mean_estimate(data, BOOTSTRAP, ["a", "b", "c"])
    with pytest.raises(ValueError, match="must have the same length, got 2, 2, 1"):
        pair_accuracy([1.0, 2.0], [0.0, 0.0], groups=["a"])


def test_ratio_interval_resamples_the_edits_of_a_case_together() -> None:
    top, bottom = [0.0, 0.0, 4.0, 4.0] * 20, [4.0] * 80
    names = [f"case{i // 2}" for i in range(80)]
    grouped, edits = ratio_estimate(top, bottom, groups=names), ratio_estimate(top, bottom)
    assert (grouped.value, grouped.n, grouped.groups, edits.groups) == (0.5, 320, 40, 80)
    assert 1.2 < (grouped.high - grouped.low) / (edits.high - edits.low) < 1.7
