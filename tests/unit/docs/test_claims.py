"""Tables of claims in the README and docs/reproduction.md have the labels that ``editr1 reproduce`` prints."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import stdev

from editr1.config.reproduce import Budget
from editr1.evaluation.report.headlines import SEED_DEVIATION
from editr1.reproduce.claims import make_comparisons

ROOT = Path(__file__).parents[3]
LABELS = [[f"{item.claim}. {item.text}", item.paper or "not reported"] for item in make_comparisons(Budget())]


def claim_rows(page: str) -> list[list[str]]:
    """Return the cells of the table of claims on a page, which has ``claim`` as its first column."""
    table = re.search(
        r"^\| claim \|.*\n\|[-|]+\n((?:\|.*\n)+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert table, f"{page} has no table of claims"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def test_reproduction_page_lists_every_comparison_with_the_number_of_the_paper() -> None:
    assert [row[:2] for row in claim_rows("docs/reproduction.md")] == LABELS


def test_rows_of_the_readme_match_the_reproduction_page() -> None:
    # The reproduction page has an additional column, the number of seeds.
    published = [[*row[:5], row[6]] for row in claim_rows("docs/reproduction.md")]
    rows = [[re.sub(r" <sup>\w</sup>$", "", cell) for cell in row] for row in claim_rows("README.md")]
    assert rows
    assert [row for row in rows if row not in published] == []


def test_claim_about_bare_verdicts_carries_its_caveat_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(T+V) over bare verdicts (V) <sup>a</sup> |" in text
    assert re.search(
        r"^<sup>a</sup> This base model can hardly recognize an image without describing it first", text, re.MULTILINE
    )


def test_page_says_of_shuffled_labels_what_the_fresh_seeds_say() -> None:
    text = (ROOT / "docs/reproduction.md").read_text(encoding="utf-8")
    (row,) = [
        row for row in claim_rows("docs/reproduction.md") if row[0].startswith("2. GCPO on shuffled labels does not")
    ]
    change, low, high = row[2].split()[0], *row[3].replace("+", "").split(" to ")
    assert f"shuffled labels change the accuracy by {change} points ({low} to {high}, n = {row[4]})" in " ".join(
        text.split()
    )
    assert not re.search(r"\*\*[^*]*shuffled labels improve", text)


def test_results_of_single_seeds_name_a_commit_and_a_machine() -> None:
    text = (ROOT / "docs/reproduction.md").read_text(encoding="utf-8")
    section = text.split("## The quickstart at three seeds")[1].split("## How far")[0]
    assert re.search(r"commit [0-9a-f]{7}", section) and "2 cores" in section
    assert re.search(r"Results on seed 601 \([^)]*2 cores[^)]*commits? [0-9a-f]{7}", text)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"seed 1002,[^)]*commit [0-9a-f]{7}, 2 cores\)", readme)


def test_readme_states_the_number_of_comparisons() -> None:
    assert f"[All {len(LABELS)} comparisons]" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_deviation_between_seeds_in_the_report_is_that_of_the_published_seeds() -> None:
    text = (ROOT / "docs/reproduction.md").read_text(encoding="utf-8")
    names = {"accuracy": "SFT-RRM, accuracy with half credit", "gain": "gain of the RL-RRM over it, points"}
    for metric, name in names.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        values = [float(cell.split()[0].removeprefix("+")) for cell in row.strip("| ").split(" | ")[1:]]
        assert len(values) == 3
        assert round(stdev(values), 1) == SEED_DEVIATION[metric]
    stated = "standard deviation is {accuracy:.1f} points for the SFT-RRM and {gain:.1f} points for the gain"
    assert stated.format(**SEED_DEVIATION) in text
