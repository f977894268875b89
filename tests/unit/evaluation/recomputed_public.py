"""Recompute the metrics of public benchmarks from ``public.jsonl`` and the files of the benchmarks, without editr1.

Requests in ``public.jsonl`` are in the order of the benchmark's rows. A request belongs to the row whose source image and
instruction it has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import numpy as np

from tests.unit.evaluation import recomputed
from tests.unit.evaluation.recomputed_judged import gedit, imgedit
from tests.unit.evaluation.recomputed_metrics import Item, Result, interval, value_of
from tests.unit.evaluation.recomputed_rewards import editscore, tiger

BENCHMARKS: dict[str, Callable[[Path, list[Item]], Result]] = {
    "editscore": editscore, "tiger": tiger, "gedit": gedit, "imgedit": imgedit,
}  # fmt: skip


def items_of(evaluation: Path, table: str) -> list[Item]:
    return [item for item in recomputed.read(evaluation / "public.jsonl") if item["table"] == table]


def stored_metrics(table: Item) -> Iterator[tuple[tuple[str, str], Item]]:
    for row in table["rows"]:
        for rule in ("published", "ours"):
            if row[rule] is not None:
                yield (row["name"], rule), row[rule]


def recomputed_tables(evaluation: Path, sets: Path) -> Iterator[tuple[Item, Result]]:
    """Yield each table of ``evaluation.json`` with its recomputed metrics. ``sets`` contains the folder of each benchmark."""
    tables = json.loads((evaluation / "evaluation.json").read_text(encoding="utf-8"))["benchmarks"]
    names = list(dict.fromkeys(item["table"] for item in recomputed.read(evaluation / "public.jsonl")))
    for name, table in zip(names, tables, strict=True):
        benchmark, title = name.split(", ", 1)
        assert table["name"].endswith(f", {title}")
        yield table, BENCHMARKS[benchmark](sets / benchmark, items_of(evaluation, name))


def check(evaluation: Path, sets: Path, *, tolerance: float = 0.12) -> int:
    """Fail unless every metric of every public benchmark equals the one that is recomputed, and return their number.

    ``tolerance`` is the largest difference of the ends of an interval from those of a bootstrap with another seed, as a fraction
    of its width.
    """
    rng, count = np.random.default_rng(0), 0
    for table, found in recomputed_tables(evaluation, sets):
        name = table["name"]
        assert (table["num_edits"], table["failures"]) == (found.num_edits, found.failures), name
        stored = dict(stored_metrics(table))
        assert stored.keys() == found.metrics.keys(), (name, stored.keys() ^ found.metrics.keys())
        for key, estimate in stored.items():
            metric = found.metrics[key]
            num_groups = len({item.group for item in metric.observations})
            assert abs(estimate["value"] - value_of(metric)) < 1e-12, (name, key)
            assert estimate["n"] == len(metric.observations), (name, key)
            assert (estimate["groups"] or estimate["n"]) == num_groups, (name, key)
            low, high = interval(metric, 1000, rng)
            close = tolerance * max(high - low, 1e-9)
            assert abs(estimate["low"] - low) < close and abs(estimate["high"] - high) < close, (name, key, low, high)
        count += len(stored)
    return count


def check_page(html: str, evaluation: Path, sets: Path) -> None:
    """Fail unless the page shows every recomputed metric with its n, in the row of its name and the column of its rule."""
    for table, found in recomputed_tables(evaluation, sets):
        (start,) = (m.end() for m in re.finditer("<h3>(.*?)</h3>", html) if unescape(m[1]) == table["name"])
        rows = {
            unescape(row[1]): [re.sub(r"<[^>]*>", " ", cell) for cell in re.findall(r"<td.*?</td>", row[0], re.DOTALL)]
            for row in re.finditer(
                r'<tr><th scope="row">(.*?)</th>.*?</tr>', html[start : html.index("</table>", start)], re.DOTALL
            )
        }
        for (name, rule), metric in found.metrics.items():
            cell = re.sub(r"\s+", " ", rows[name][("published", "ours").index(rule)]).strip()
            shown = table["scale"] * value_of(metric)
            digits = 1 if table["scale"] == 100 else 2
            near = "|".join({re.escape(f"{shown + shift:.{digits}f}") for shift in (-1e-9, 1e-9)})
            count = f"n = {len(metric.observations)}(?: in {len({item.group for item in metric.observations})} groups)?"
            assert re.fullmatch(rf"(?:{near}) [0-9.]+ to [0-9.]+ {count}", cell), (name, cell, near, count)
