"""Write the results of a campaign as a table: outcomes per area, and every bad outcome with its id."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.classify import BAD, Outcome

_SHOWN = [outcome for outcome in Outcome if outcome is not Outcome.NOT_MET]


def read_results(file: Path) -> list[dict[str, Any]]:
    """Return the results in a file of JSON lines; an incomplete last line is left out."""
    results = []
    for line in file.read_text().splitlines() if file.is_file() else ():
        try:
            results.append(json.loads(line))
        except ValueError:
            continue
    return results


def counts(results: Sequence[dict[str, Any]]) -> dict[str, Counter[str]]:
    """Return the number of faults per area and outcome."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        found.setdefault(result["area"], Counter())[result["outcome"]] += 1
    return dict(sorted(found.items()))


def bad(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results whose outcome must not occur."""
    return [result for result in results if result["outcome"] in list(BAD)]


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Return the table of outcomes and the list of bad ones in Markdown."""
    areas = counts(results)
    lines = [f"| area | faults | {' | '.join(_SHOWN)} |", f"|---|---{'|---' * len(_SHOWN)}|"]
    for area, found in [*areas.items(), ("all", sum(areas.values(), Counter()))]:
        numbers = [found[outcome] for outcome in _SHOWN]
        lines.append(f"| {area} | {sum(numbers)} | {' | '.join(map(str, numbers))} |")
    for result in bad(results):
        lines.append(f"\n- `{result['id']}` ({result['workload']}): {result['outcome']}: {result['reason']}")
        lines.append(f"  injected: {result['injected']}")
    return "\n".join(lines) + "\n"


def write(folder: Path) -> None:
    """Write ``table.md`` and ``table.json`` from ``results.jsonl`` in a folder."""
    results = read_results(folder / "results.jsonl")
    (folder / "table.md").write_text(markdown(results))
    (folder / "table.json").write_text(json.dumps({"areas": counts(results), "bad": bad(results)}, indent=1))
