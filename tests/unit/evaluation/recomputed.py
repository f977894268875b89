"""Recompute every metric of an evaluation from its files ``pairs.jsonl`` and ``edits.jsonl``, without editr1 or a model.

A metric is a pair (values, groups): its value is the weighted mean of the values, and the bootstrap resamples groups.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

CATEGORIES = ("Instruction Following", "Feature Preservation", "Image Quality")
Row = tuple[float, float, str]
"""Numerator, denominator and group of one observation."""


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def stored_estimates(folder: Path) -> dict[str, dict[str, Any]]:
    """Return every estimate in ``evaluation.json``, by its path. Public benchmarks are left out."""
    data = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    data.pop("benchmarks")

    def walk(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(node, dict) and {"value", "low", "high", "n"} <= node.keys():
            yield path, node
        elif isinstance(node, dict):
            for name, child in node.items():
                yield from walk(child, f"{path}/{name}")
        elif isinstance(node, list):
            for child in node:
                name = child.get("role", child.get("case_id", "")) if isinstance(child, dict) else ""
                yield from walk(child, f"{path}/{name}")

    return dict(walk(data, ""))


def recomputed_rows(folder: Path) -> dict[str, list[Row]]:
    """Return the observations of every metric, by the path of its estimate in ``evaluation.json``."""
    pairs, edits = read(folder / "pairs.jsonl"), read(folder / "edits.jsonl")
    found: dict[str, list[Row]] = {}
    decided = [item for item in pairs if item["label"] != "same"]
    roles = list(dict.fromkeys(item["verifier"] for item in decided))
    credits = {role: {i["pair_id"]: credit(i) for i in decided if i["verifier"] == role} for role in roles}
    for role in roles:
        mine = [item for item in decided if item["verifier"] == role]
        for kind in ("strict", "half_credit", "ties", "inverted"):
            scored = [i for i in mine if credits[role][i["pair_id"]] is not None]
            found[f"/verifiers/{role}/accuracy/{kind}"] = [
                (credits[role][i["pair_id"]][kind], 1.0, i["source"]) for i in scored
            ]
        for kind in ("strict", "half_credit") if any(credits[role].values()) else ():
            found[f"/verifiers/{role}/accuracy/{kind}_with_failed"] = [
                ((credits[role][i["pair_id"]] or {kind: 0.0})[kind], 1.0, i["source"]) for i in mine
            ]
        found[f"/verifiers/{role}/parsed"] = [row for item in mine for row in parsed(item)]
        for category in CATEGORIES:
            found[f"/verifiers/{role}/verdicts/{category}"] = [r for item in mine for r in agreed(item, category)]
    if {"sft", "rl"} <= set(roles):
        for kind in ("strict", "half_credit", "ties", "inverted"):
            found[f"/verifier_gain/{kind}"] = [
                (credits["rl"][i["pair_id"]][kind] - credits["sft"][i["pair_id"]][kind], 1.0, i["source"])
                for i in decided
                if i["verifier"] == "sft" and credits["rl"][i["pair_id"]] and credits["sft"][i["pair_id"]]
            ]
    found["/label_agreement"] = [
        (0.5 + 0.5 * float(np.sign(winner - loser)), 1.0, item["source"])
        for item in decided
        if item["verifier"] == roles[0]
        for winner, loser in [[item[f"{side}_edit"]["truth"]["score"] for side in ("winner", "loser")]]
    ]
    found |= of_editors(edits)
    return {name: rows for name, rows in found.items() if rows}


def of_editors(edits: list[dict[str, Any]]) -> dict[str, list[Row]]:
    before, after = ({e["case_id"]: e for e in edits if e["editor"] == name} for name in ("before", "after"))
    measures: dict[str, Callable[[dict[str, Any]], float]] = {
        name: lambda edit, name=name: edit["truth"][name] for name in ("score", "follow", "keep", "quality")
    }
    measures["success"] = lambda edit: float(edit["truth"]["score"] >= 9.0)
    found: dict[str, list[Row]] = {}
    for name, measure in measures.items():
        rows = [(measure(before[c]), measure(after[c]), before[c]["source"]) for c in before]
        found[f"/editor/before/{name}"] = [(b, 1.0, s) for b, _, s in rows]
        found[f"/editor/after/{name}"] = [(a, 1.0, s) for _, a, s in rows]
        found[f"/editor/gain/{name}"] = [(a - b, 1.0, s) for b, a, s in rows]
        if name == "score":
            found["/editor/gsb"] = [(float(np.sign(a - b)), 1.0, s) for b, a, s in rows]
    return found


def credit(item: dict[str, Any]) -> dict[str, float] | None:
    """Return the credit of a pair under each rule, or None if an edit has no score. Check the scores against the traces."""
    scores = []
    for side in ("winner", "loser"):
        said = [trace for trace in map(answer, item[f"{side}_edit"]["answers"]["traces"]) if trace]
        if item[side] is None:
            return None
        assert [list(bits) for bits, _ in said] == item[f"{side}_edit"]["answers"]["verdicts"]
        assert [score for _, score in said] == item[f"{side}_edit"]["answers"]["scores"]
        assert abs(np.mean([score for _, score in said]) - item[side]) < 1e-9
        scores.append(item[side])
    won, lost = scores
    return {
        "strict": float(won > lost),
        "half_credit": float(won > lost) + 0.5 * float(won == lost),
        "ties": float(won == lost),
        "inverted": float(won < lost),
    }


def answer(trace: str) -> tuple[list[int], float] | None:
    """Return the answers and the score of a trace in its canonical format, or None."""
    found = re.fullmatch(
        r'.*?(\[\{.*\}\])\s*\{"average_score": [0-9.]+\}\s*<score>([0-9.]+)</score>\s*', trace, re.DOTALL
    )
    return ([item["score"] for item in json.loads(found[1])], float(found[2])) if found else None


def parsed(item: dict[str, Any]) -> Iterator[Row]:
    for side in ("winner", "loser"):
        answers = item[f"{side}_edit"]["answers"]
        if not answers["failure"] or answers["failure"].startswith("unparsed"):
            yield float(answers["num_parsed"]), float(item["num_traces"]), item["source"]


def agreed(item: dict[str, Any], category: str) -> Iterator[Row]:
    places = [i for i, name in enumerate(item["categories"]) if name == category]
    for side in ("winner", "loser"):
        edit = item[f"{side}_edit"]
        right = [bits[i] == edit["truth"]["verdicts"][i] for bits in edit["answers"]["verdicts"] for i in places]
        if right:
            yield float(sum(right)), float(len(right)), item["source"]


def check(folder: Path, *, tolerance: float = 0.12, min_groups: int = 2) -> None:
    """Fail unless every estimate in ``evaluation.json`` equals the one that is recomputed from the other files.

    ``tolerance`` is the largest difference of the ends of an interval from those of a bootstrap with another seed, as a
    fraction of its width. Intervals over fewer than ``min_groups`` groups are not compared.
    """
    stored, rows = stored_estimates(folder), recomputed_rows(folder)
    stored.pop(
        "/editor/unchanged", None
    )  # the score of the source images, which are inputs and not part of the artifact
    assert stored and stored.keys() == rows.keys(), stored.keys() ^ rows.keys()
    rng = np.random.default_rng(0)
    for name, estimate in stored.items():
        top, bottom, groups = (list(column) for column in zip(*rows[name], strict=True))
        assert abs(estimate["value"] - sum(top) / sum(bottom)) < 1e-12, name
        assert estimate["n"] == sum(bottom), name
        assert (estimate["groups"] or estimate["n"]) == len(set(groups)), name
        if len(set(groups)) >= min_groups:
            low, high = interval(rows[name], 1500, rng)
            width = max(high - low, 1e-9)
            assert abs(estimate["low"] - low) < tolerance * width, (name, estimate, low, high)
            assert abs(estimate["high"] - high) < tolerance * width, (name, estimate, low, high)


SHOWN = {
    "accuracy": (100, 1, ""),
    "verdicts": (100, 1, ""),
    "parsed": (100, 1, ""),
    "verifier_gain": (100, 1, "+"),
    "before": (100, 1, ""),
    "after": (100, 1, ""),
    "gain": (100, 1, "+"),
    "gsb": (100, 1, "+"),
    "label_agreement": (100, 1, ""),
}
"""Scale, decimals and sign of the metrics on the page, by a component of their path."""


def check_page(html: str, folder: Path) -> None:
    """Fail unless the page shows every recomputed metric as "value low to high n = N", in the order of the tables."""
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)).replace("\u2212", "-")
    for name, rows in recomputed_rows(folder).items():
        part = next(part for part in name.split("/") if part in SHOWN)
        scale, digits, sign = SHOWN[part]
        if name.endswith("/score"):
            scale, digits = 1, 2
        value = scale * sum(row[0] for row in rows) / sum(row[1] for row in rows)
        near = {f"{value + shift:{sign}.{digits}f}" for shift in (-1e-9, 1e-9)}  # a half may be rounded either way
        n = round(sum(row[1] for row in rows))
        shown = "|".join(re.escape(number) for number in near)
        if part == "label_agreement":
            assert re.search(rf"agrees with ({shown}) % \([0-9.]+ to [0-9.]+, n = {n}", text), name
        elif not name.endswith("_with_failed") or n != len(recomputed_rows(folder)[name.removesuffix("_with_failed")]):
            assert re.search(rf"({shown}) [-+]?[0-9.]+ to [-+]?[0-9.]+ n = {n}\b", text), (name, near, n)


def interval(rows: list[Row], samples: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % percentile interval of a bootstrap that draws whole groups, one after the other."""
    groups: dict[str, tuple[float, float]] = {}
    for top, bottom, name in rows:
        known = groups.get(name, (0.0, 0.0))
        groups[name] = known[0] + top, known[1] + bottom
    sums = np.array(list(groups.values()))
    means = []
    for _ in range(samples):
        top, bottom = sums[rng.integers(0, len(sums), len(sums))].sum(axis=0)
        means.append(top / bottom)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
