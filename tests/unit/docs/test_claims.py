"""Tables of claims in the README and docs/reproduction.md have the labels that ``editr1 reproduce`` prints."""

from __future__ import annotations

import re
from pathlib import Path

from editr1.config.reproduce import Budget
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
    rows = claim_rows("README.md")
    assert rows
    assert [row for row in rows if row not in published] == []


def test_readme_states_the_number_of_comparisons() -> None:
    assert f"[All {len(LABELS)} comparisons]" in (ROOT / "README.md").read_text(encoding="utf-8")
