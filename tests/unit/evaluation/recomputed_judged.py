"""Recompute the metrics of an editor on GEdit-Bench and ImgEdit-Bench from the judge's answers and the benchmark's rows."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

from tests.unit.evaluation.recomputed_metrics import Item, Metric, Metrics, Observation, Result, rows_of, sha


def gedit(folder: Path, items: list[Item]) -> Result:
    """Recompute GEdit-Bench. Each case has two requests: one with both images, and one with the edited image."""
    prompt = json.loads((folder / "prompts.json").read_text())["sc"]
    rows = [row for row in rows_of(folder) if row["instruction_language"] == "en"]
    assert len(items) == 2 * len(rows)
    metrics: dict[str, list[Observation]] = defaultdict(list)
    failures: dict[str, int] = defaultdict(int)
    for row, both, alone in zip(rows, items[::2], items[1::2], strict=True):
        assert both["text"] == prompt.replace("<instruction>", row["instruction"])
        assert both["images"] == [sha(row["input_image"]), *alone["images"]]
        bad = [cause for cause in map(_viescore_failure, (both, alone)) if cause]
        if bad:
            failures[bad[0]] += 1
            continue
        sc, pq_ = (min(json.loads(item["answers"]["traces"][0])["score"]) for item in (both, alone))
        for name, value in (("SC", sc), ("PQ", pq_), ("O", (sc * pq_) ** 0.5)):
            metrics[name].append(Observation(float(value), row["task_type"], sha(row["input_image"])))
    found: Metrics = {}
    for rule in ("published", "ours"):
        found |= {(f"{name}, mean over types", rule): Metric(values, macro=True) for name, values in metrics.items()}
        for kind in {item.kind for item in metrics["O"]}:
            found[f"O: {kind}", rule] = Metric([item for item in metrics["O"] if item.kind == kind], macro=True)
    return Result(found, len(rows), dict(failures))


def _viescore_failure(item: Item) -> str:
    if item["answers"]["failure"]:
        return "refused"
    return "" if re.search(r'"score": \[\d+, \d+\]', item["answers"]["traces"][0]) else "unparsed"


def imgedit(folder: Path, items: list[Item]) -> Result:
    """Recompute ImgEdit-Bench. Each case has one request."""
    cases = json.loads((folder / "basic_edit.json").read_text())
    rubrics = json.loads((folder / "prompts.json").read_text())
    sides: dict[str, list[Observation]] = {"published": [], "ours": []}
    failures: dict[str, int] = defaultdict(int)
    for case, item in zip(cases.values(), items, strict=True):
        source = sha((folder / "singleturn" / case["id"]).read_bytes())
        assert item["text"] == rubrics[case["edit_type"]].replace("<edit_prompt>", case["prompt"])
        assert item["images"][0] == source
        if item["answers"]["failure"]:
            failures["refused"] += 1
            continue
        ratings = [int(n) for n in re.findall(r"^[A-Za-z ]+: (\d+)$", item["answers"]["traces"][0], re.MULTILINE)]
        if ratings:
            sides["published"].append(Observation(round(sum(ratings) / len(ratings), 2), case["edit_type"], source))
        if len(ratings) == 3 and set(ratings) <= {1, 2, 3, 4, 5}:
            sides["ours"].append(Observation(sum(ratings) / 3, case["edit_type"], source))
        else:
            failures["unparsed"] += 1
    metrics: Metrics = {}
    for rule, observations in sides.items():
        metrics["mean over types (macro)", rule] = Metric(observations, macro=True)
        metrics["mean over images (micro)", rule] = Metric(observations)
        for kind in {item.kind for item in observations}:
            metrics[kind, rule] = Metric([item for item in observations if item.kind == kind])
    return Result(metrics, len(cases), dict(failures))
