"""Write the output files of a reproduction: reproduction.json, reproduction.html and table.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from editr1.config.reproduce import Budget
from editr1.reproduce.page import render_page, render_table
from editr1.reproduce.results import Reproduction, check_existing_results


class OutputFiles:
    """The output files of a reproduction in ``folder``: results (JSON), report (HTML) and table (Markdown).

    The file names contain the names of the claims in ``only``. Therefore, a reproduction of one claim does not
    overwrite a reproduction of all claims.
    """

    def __init__(self, folder: Path, only: Iterable[str]) -> None:
        suffix = "".join(f"-{name}" for name in sorted(set(only)))
        self.results = folder / f"reproduction{suffix}.json"
        self.page = folder / f"reproduction{suffix}.html"
        self.table = folder / f"table{suffix}.md"

    def prepare(self, budget: Budget, seeds: Collection[int]) -> None:
        """Create the folder. Raise ConfigError if existing results would be lost; see ``check_existing_results``."""
        self.results.parent.mkdir(parents=True, exist_ok=True)
        check_existing_results(self.results, budget, seeds)

    def write(self, found: Reproduction) -> None:
        """Write the results as a JSON file, an HTML report and a Markdown table."""
        self.results.write_text(found.model_dump_json(indent=1), encoding="utf-8")
        self.page.write_text(render_page(found), encoding="utf-8")
        self.table.write_text(render_table(found), encoding="utf-8")
