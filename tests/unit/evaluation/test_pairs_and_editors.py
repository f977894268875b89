"""Evaluation of verifiers and editors with scorers whose results can be computed by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from editr1.data.images import decode_image
from editr1.data.types import Category, EditCase, EncodedImage, PreferencePair, Principle, Scored, ScoreFailure
from editr1.evaluation.editor_eval import editor_metrics, evaluate_editor, gallery
from editr1.evaluation.pairs import (
    compare_verifiers,
    first_decided_pairs,
    score_pairs,
    verdict_accuracy,
    verifier_metrics,
)
from editr1.evaluation.scoring import ScorerError, TooManyFailures, failures, score_in_batches
from tests.unit.evaluation import examples

PRINCIPLES = (
    Principle(question="bright?", category=Category.FOLLOW),
    Principle(question="grey?", category=Category.KEEP),
)


def image(shade: int) -> EncodedImage:
    return examples.image(shade, shade, shade)


def shade_of(image: Image.Image) -> int:
    return int(np.asarray(image)[0, 0, 0])


def case(i: int, principles=PRINCIPLES) -> EditCase:
    return examples.case_of(f"c{i}", image(i), principles)


def pair(i: int, better: int, worse: int, label="winner") -> PreferencePair:
    return examples.pair_of(f"p{i}", case(i), image(better), image(worse), label)


def scorer(score_of=lambda shade: shade / 10, broken=()):
    """Return a scorer that scores edits by brightness and fails for the shades in ``broken``."""

    def score(items):
        outcomes = []
        for item in items:
            shade = shade_of(decode_image(item.edited.data))
            if shade in broken:
                outcomes.append(ScoreFailure(cause="unparsed", detail="no <score>"))
                continue
            verdict = examples.verdict(score_of(shade), [int(shade >= 50), 1], f"shade {shade}\n")
            outcomes.append(examples.scored_by([verdict]))
        return outcomes

    return score


def truth(case, image):
    shade = shade_of(image)
    bits = (int(shade >= 30), 1)
    return SimpleNamespace(score=shade / 10, follow=bits[0], keep=1.0, quality=1.0, verdicts=bits)


PAIRS = [pair(0, 90, 10), pair(1, 40, 40), pair(2, 20, 60), pair(3, 70, 30), pair(4, 5, 6, "same"), pair(5, 80, 15)]


def test_same_pairs_are_excluded():
    seen = []
    scores = score_pairs(PAIRS, scorer(), batch_size=4, on_batch=seen.append)
    assert seen == [4, 4, 2]
    found = scores.accuracy()
    assert (found.n, found.same, found.failed) == (5, 1, 0)
    assert found.strict.value == pytest.approx(3 / 5)
    assert found.half_credit.value == pytest.approx(3.5 / 5)


def test_pair_with_a_failed_score_is_excluded_and_counted():
    scores = score_pairs(PAIRS, scorer(broken=(70,)))
    found = scores.accuracy()
    assert (found.n, found.failed) == (4, 1)
    assert found.strict.value == pytest.approx(2 / 4)
    assert found.strict_with_failed is not None and found.half_credit_with_failed is not None
    assert (found.strict_with_failed.n, found.half_credit_with_failed.n) == (5, 5)
    assert found.strict_with_failed.value == pytest.approx(2 / 5)
    assert found.half_credit_with_failed.value == pytest.approx(2.5 / 5)
    parsed = scores.parsed()
    assert parsed is not None
    assert parsed.value == pytest.approx(9 / 10)
    assert failures(scores.winners) == {"unparsed": 1}


def test_parsed_fraction_counts_every_trace_of_a_failed_edit():
    parsed = score_pairs(PAIRS, scorer(broken=(70,)), num_traces=4).parsed()
    assert parsed is not None
    assert parsed.value == pytest.approx(9 / 13), "nine traces were parsed, four were not"


def test_verifier_without_scores_has_no_accuracy():
    scores = score_pairs(PAIRS[:1], scorer(broken=(90, 10)))
    metrics = verifier_metrics("RRM", "sft", scores, truth)
    assert metrics.accuracy is None
    assert metrics.verdicts == {}
    assert (metrics.num_pairs, metrics.failed_pairs, metrics.num_edits) == (1, 1, 2)
    assert (metrics.failures, metrics.first_failure) == ({"unparsed": 2}, "no <score>")


def test_too_many_failures_stop_the_evaluation():
    with pytest.raises(TooManyFailures, match=r"1 of 10 scores failed \(unparsed: 1\), but at most 5%"):
        score_pairs(PAIRS, scorer(broken=(70,)), max_failed_fraction=0.05)


def test_scorer_that_drops_items_is_rejected():
    with pytest.raises(ScorerError, match="1 outcomes for 2 edits"):
        score_pairs(PAIRS, lambda items: scorer()(items[:1]), batch_size=2)


def test_scorer_that_confuses_items_is_rejected():
    def named(items):
        return [
            outcome.model_copy(update={"edited": item.edited.digest})
            for item, outcome in zip(items, scorer()(items), strict=True)
        ]

    assert score_pairs(PAIRS, named, batch_size=2).winners
    with pytest.raises(ScorerError, match="outcome 0 is for the edited image sha256:"):
        score_pairs(PAIRS, lambda items: named(items)[::-1], batch_size=2)


def test_pair_without_principles_is_rejected_before_scoring():
    bare = PAIRS[0].model_copy(update={"case": case(0, principles=())})
    with pytest.raises(ValueError, match="pair p0: its case c0 has no principles"):
        score_pairs([bare], lambda items: pytest.fail("scored"))


def test_gain_is_measured_on_pairs_that_both_verifiers_scored():
    before = score_pairs(PAIRS, scorer(score_of=lambda s: 5.0, broken=(80,)))
    after = score_pairs(PAIRS, scorer(broken=(70,)))
    gain = compare_verifiers(after, before)
    # Pairs 0, 1 and 2 remain. The results are win, tie and loss after training, and three ties before.
    assert gain.half_credit is not None and gain.strict is not None and gain.ties is not None
    assert gain.half_credit.n == 3
    assert gain.half_credit.value == pytest.approx((0.5 + 0 - 0.5) / 3)
    assert gain.strict.value == pytest.approx(1 / 3)
    assert gain.ties.value == pytest.approx(-2 / 3)
    with pytest.raises(ValueError, match="same pairs"):
        compare_verifiers(after, score_pairs(PAIRS[1:], scorer()))


def test_verdict_accuracy_is_measured_per_category():
    found = verdict_accuracy(score_pairs(PAIRS, scorer()), truth)
    # The shades are 90 10 40 40 20 60 70 30 80 15. The verifier wrongly answers "no" for 40, 40 and 30.
    assert found[Category.FOLLOW].value == pytest.approx(7 / 10)
    assert found[Category.KEEP].value == 1.0
    assert found[Category.FOLLOW].n == 10
    assert Category.QUALITY not in found


def test_number_of_decided_pairs_excludes_same_pairs():
    order = [PAIRS[4], PAIRS[0], PAIRS[4], PAIRS[1], PAIRS[2]]
    assert [p.pair_id for p in first_decided_pairs(order, 2)] == ["p4", "p0", "p4", "p1"]


def test_items_of_a_generator_are_scored_in_order():
    items = (
        item
        for p in PAIRS[:3]
        for item in [
            dict(source=p.case.source, edited=p.winner.image, instruction="x", principles=PRINCIPLES),
        ]
    )
    from editr1.data.types import ScoreItem

    outcomes = score_in_batches((ScoreItem(**i) for i in items), scorer(), batch_size=2)
    assert [o.score for o in outcomes if isinstance(o, Scored)] == [9.0, 4.0, 2.0]


# Editors


def brighter(by: int):
    def edit(sources, instructions):
        assert set(instructions) == {"brighter"}
        return [Image.new("RGB", s.size, (shade_of(s) + by,) * 3) for s in sources]

    return edit


CASES = [case(i) for i in range(10)]


def test_every_edit_has_a_true_score_and_a_verifier_score():
    rows = evaluate_editor(CASES, brighter(50), scorer=scorer(), truth=truth, batch_size=4)
    assert [row.case.case_id for row in rows] == [f"c{i}" for i in range(10)]
    assert rows[3].truth.score == pytest.approx(5.3)
    assert rows[3].outcome.score == pytest.approx(5.3)


def test_editor_gain_is_paired_by_case():
    before = evaluate_editor(CASES, brighter(5), truth=truth)
    after = evaluate_editor(CASES, brighter(90), truth=truth)
    found = editor_metrics(before, after, "truth")
    assert found.before.score is not None and found.gain.score is not None and found.gain.follow is not None
    assert found.before.score.value == pytest.approx(0.95)
    assert found.gain.score.value == pytest.approx(8.5)
    assert found.gain.score.low == pytest.approx(8.5) == found.gain.score.high
    assert found.gain.follow.value == 1.0
    assert found.after.success is not None
    assert found.after.success.value == 1.0
    assert found.gsb is not None
    assert found.gsb.value == 1.0
    assert found.failed == 0


def test_metrics_from_verifier_scores_have_no_parts_and_exclude_failures():
    before = evaluate_editor(CASES, brighter(5), scorer=scorer(broken=(7,)))
    after = evaluate_editor(CASES, brighter(50), scorer=scorer(broken=(57, 58)))
    found = editor_metrics(before, after, "verifier")
    assert found.failed == 3
    assert found.gain.score is not None
    assert found.gain.score.n == 7
    assert found.gain.follow is found.gain.success is None
    nothing = editor_metrics(before, after, "truth")
    assert nothing.gain.score is None
    assert nothing.failed == len(CASES)
    with pytest.raises(ValueError, match="same cases"):
        editor_metrics(before[1:], after[:-1], "truth")


def test_gallery_is_sampled_by_seed_and_shows_verdicts_with_true_answers():
    before = evaluate_editor(CASES, brighter(35), scorer=scorer(), truth=truth)
    after = evaluate_editor(CASES, brighter(60), scorer=scorer(broken=(63,)), truth=truth)
    shown = gallery(before, after, 4, seed=1)
    assert shown == gallery(before, after, 4, seed=1)
    assert [c.case_id for c in shown] == sorted(c.case_id for c in shown)
    assert [c.case_id for c in gallery(before, after, 4, seed=2)] != [c.case_id for c in shown]
    everything = gallery(before, after, 99, seed=1)
    assert len(everything) == 10
    first, broken = everything[0].before, everything[3].after
    assert first is not None and broken is not None
    assert (first.principles[0].verdict, first.principles[0].truth) == (0, 1)
    assert first.reasoning == "shade 35"
    assert broken.failure == "unparsed: no <score>"
    assert broken.score is None and broken.principles[0].verdict is None and broken.principles[0].truth == 1


def test_editor_that_drops_an_image_is_rejected():
    with pytest.raises(ValueError, match="edit returned 9 images for 10 cases; it must return one image per case"):
        evaluate_editor(CASES, lambda s, i: brighter(1)(s, i)[:-1])
