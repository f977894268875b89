"""Recompute a verifier's metrics on the benchmarks of EditScore and TIGER, from its requests and the rows of the benchmarks."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.unit.evaluation import recomputed
from tests.unit.evaluation.recomputed_metrics import Item, Metric, Metrics, Observation, Result, rows_of, sha


def score_of(item: Item | None) -> float | None:
    """Return the score of an edit, which is the mean over its parsed traces, or None. Check it against the traces."""
    if item is None or item["score"] is None:
        assert item is None or item["answers"]["failure"]
        return None
    said = [score for trace in map(recomputed.answer, item["answers"]["traces"]) if trace for score in [trace[1]]]
    assert said == item["answers"]["scores"] and abs(np.mean(said) - item["score"]) < 1e-9
    return float(item["score"])


class _Requests:
    """The requests of a verifier, which are taken in order for each source image and instruction."""

    def __init__(self, items: list[Item]) -> None:
        self._waiting: dict[tuple[str, str], list[Item]] = defaultdict(list)
        for item in items:
            self._waiting[item["images"][0], item["text"]].append(item)
        self.failures: dict[str, int] = defaultdict(int)
        self.num_edits = 0

    def take(self, source: bytes, instruction: str, edit: bytes) -> float | None:
        """Return the score of the next edit of a case. A case without principles has no requests."""
        waiting = self._waiting[sha(source), instruction]
        item = waiting.pop(0) if waiting else None
        assert item is None or item["images"][1] == sha(edit)
        self.num_edits += 1
        if item is None or item["score"] is None:
            self.failures[item["answers"]["failure"].split(":")[0] if item else "no principles"] += 1
        return score_of(item)

    def finish(self, metrics: Metrics) -> Result:
        assert not any(self._waiting.values()), "a request belongs to no row"
        return Result(metrics, self.num_edits, dict(self.failures))


def editscore(folder: Path, items: list[Item]) -> Result:
    """Recompute EditScore's benchmark. Every edit has the size of its source image."""
    rows, requests, scores = rows_of(folder), _Requests(items), {}
    for row in rows:
        for key, edit in zip(row["key"], row["output_images"], strict=True):
            if key not in scores:
                scores[key] = requests.take(row["input_image"], row["instruction"], edit)
    metrics: Metrics = {}
    for dimension in ("prompt_following", "consistency", "overall"):
        found = [
            (*(scores[key] for key in row["key"]), row["task_type"], sha(row["input_image"]))
            for row in rows
            if row["dimension"] == dimension
        ]
        scored = [(a, b, kind, source) for a, b, kind, source in found if a is not None and b is not None]
        wins = [Observation(float(a > b), kind, source) for a, b, kind, source in scored]
        failed = [Observation(0.0, kind, source) for a, b, kind, source in found if a is None or b is None]
        half = [Observation(0.5 * (a > b) + 0.5 * (a >= b), kind, source) for a, b, kind, source in scored]
        metrics[dimension, "published"] = Metric(wins + failed, macro=True)
        metrics[dimension, "ours"] = Metric(wins)
        metrics[f"{dimension}, half credit", "ours"] = Metric(half)
        metrics[f"{dimension}, failed as wrong", "ours"] = Metric(wins + failed)
        if dimension == "overall":
            for kind in {row.kind for row in wins}:
                metrics[f"overall: {kind}", "published"] = Metric([o for o in wins + failed if o.kind == kind])
    return requests.finish(metrics)


def tiger(folder: Path, items: list[Item]) -> Result:
    """Recompute TIGER's benchmark. The rows of a group follow each other, and name its edits in alphabetical order."""
    groups: dict[tuple[int, str], Item] = {}
    for row in rows_of(folder):
        size = int(row["dataset"][0])
        name = row["id"] if size == 2 else row["id"].split("_")[0]
        group = groups.setdefault((size, name), {"row": row, "edits": {}, "human": {}})
        first, second = row["comparison_type"].split("vs")
        group["edits"] |= {first: row["candidate_1"], second: row["candidate_2"]}
        sign = {"=": 0, ">": 1}[row["ranking"][1]] * (1 if row["ranking"][0] == first else -1)
        group["human"][first, second] = sign
    requests = _Requests(items)
    for group in groups.values():
        row = group["row"]
        group["source"] = sha(row["source_image"])
        group["scores"] = {
            letter: requests.take(row["source_image"], row["instruction"], group["edits"][letter])
            for letter in sorted(group["edits"])
        }
        group["complete"] = None not in group["scores"].values()
    metrics: Metrics = {}
    overall: dict[str, list[Observation]] = {"published": [], "ours": []}
    lost: list[Observation] = []
    for size in (2, 3, 4):
        mine = [(name, group) for (k, name), group in groups.items() if k == size]
        done = [(name, group) for name, group in mine if group["complete"]]
        failed = [Observation(0.0, str(size), group["source"]) for _, group in mine if not group["complete"]]
        lost += failed
        ranked = [float(_ranking(group) == _human_ranking(group)) for _, group in done]
        if size == 2:
            human = [group["human"]["A", "B"] for _, group in done]
            gaps = [group["scores"]["A"] - group["scores"]["B"] for _, group in done]
            published = _tie_credit(human, gaps, _epsilon(human, gaps))
            halves = [hashlib.sha256(name.encode()).digest()[0] % 2 for name, _ in done]
            others = [[i for i, half in enumerate(halves) if half != side] for side in (0, 1)]
            tuned = [_epsilon([human[i] for i in other], [gaps[i] for i in other]) for other in others]
            ours = [_tie_credit([human[i]], [gaps[i]], tuned[half])[0] for i, half in enumerate(halves)]
            in_total = [p if h == 0 else r for p, h, r in zip(published, human, ranked, strict=True)]
        else:
            published = in_total = ranked
            ours = [r * (len(set(g["scores"].values())) == size) for r, (_, g) in zip(ranked, done, strict=True)]
        sources = [group["source"] for _, group in done]

        def seen(values: Sequence[float], size: int = size, sources: list[str] = sources) -> list[Observation]:
            return [Observation(value, str(size), source) for value, source in zip(values, sources, strict=True)]

        metrics[f"K = {size}", "published"] = Metric(seen(published) + failed)
        metrics[f"K = {size}", "ours"] = Metric(seen(ours))
        overall["published"] += seen(in_total) + failed
        overall["ours"] += seen(ours)
    for rule, observations in overall.items():
        metrics["overall, weighted by groups", rule] = Metric(observations)
    metrics["overall, weighted by groups, failed as wrong", "ours"] = Metric(overall["ours"] + lost)
    return requests.finish(metrics | _preferences(groups))


def _preferences(groups: dict[tuple[int, str], Item]) -> Metrics:
    strict, half, failed = [], [], []
    for (size, _), group in groups.items():
        for (first, second), sign in group["human"].items():
            if sign and not group["complete"]:
                failed.append(Observation(0.0, str(size), group["source"]))
            elif sign:
                gap = sign * (group["scores"][first] - group["scores"][second])
                strict.append(Observation(float(gap > 0), str(size), group["source"]))
                half.append(Observation(0.5 + 0.5 * float(np.sign(gap)), str(size), group["source"]))
    return {
        ("all pairs with a preference, strict", "ours"): Metric(strict),
        ("all pairs with a preference, failed as wrong", "ours"): Metric(strict + failed),
        ("all pairs with a preference, half credit", "ours"): Metric(half),
        ("pairs with a preference, half credit, mean over K", "ours"): Metric(half, macro=True),
    }


def _ranking(group: Item) -> list[str]:
    """Return the edits, best first. Of two edits with the same score, the one with the later letter is better."""
    return sorted(group["scores"], key=lambda letter: (group["scores"][letter], letter), reverse=True)


def _human_ranking(group: Item) -> list[str] | None:
    wins = dict.fromkeys(group["edits"], 0)
    for (first, second), sign in group["human"].items():
        wins[first if sign > 0 else second] += 1
    return sorted(wins, key=lambda letter: -wins[letter]) if len(set(wins.values())) == len(wins) else None


def _tie_credit(human: Sequence[int], gaps: Sequence[float], epsilon: float) -> list[float]:
    said = [0 if abs(gap) <= epsilon else int(np.sign(gap)) for gap in gaps]
    return [float(h == s) for h, s in zip(human, said, strict=True)]


def _epsilon(human: Sequence[int], gaps: Sequence[float]) -> float:
    candidates = sorted({0.0, *map(abs, gaps)})
    return max(candidates, key=lambda epsilon: (sum(_tie_credit(human, gaps, epsilon)), -epsilon))
