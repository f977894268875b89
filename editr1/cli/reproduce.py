"""``editr1 reproduce``: the paper's claims on the shapes world, with what holds and what does not."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from editr1.cli.common import SetOption, StopFlag, command_line, reporting


class Size(StrEnum):
    """How much is run."""

    FULL = "full"
    SMALLEST = "smallest"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("reproduce")(reproduce)


def reproduce(
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Number of seeds.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first one; the others follow it.")] = 1001,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A claim: curation, gcpo, size, traces, editor or gsb; may be given several times."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for runs, artifacts and the page.  [default: runs/reproduction, or runs/reproduction-smallest]"
        ),
    ] = None,
    size: Annotated[Size, typer.Option(help="smallest only shows that everything runs.")] = Size.FULL,
    parallel: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at the same time, about 1.5 GB each.  [default: one a core, at most 4]"),
    ] = None,
    overrides: SetOption = None,
    list_cells: Annotated[bool, typer.Option("--list", help="Only list claims and runs; start nothing.")] = False,
) -> None:
    """Show which of the paper's claims hold on the shapes world, where the truth is known.

    Every claim is a comparison of small runs on the same held-out pairs or cases, at several seeds. What stands already
    is not run again; a call that was stopped goes on. Writes reproduction.html, reproduction.json and table.md; with
    --only the claims' names are in the files' names.

    Example: editr1 reproduce --seeds 1 --only gcpo

    Example: editr1 reproduce --seeds 5 --out runs/reproduction --set iterations=90
    """
    import os

    from editr1.cli.reproduction_view import ReproductionView
    from editr1.config.loader import ConfigError, load_settings
    from editr1.config.reproduce import SMALLEST, Budget
    from editr1.reproduce.claims import cell_names, chosen, make_contrasts
    from editr1.reproduce.experiments import make_cells, with_needs
    from editr1.reproduce.orchestrate import reproduce as run_all
    from editr1.reproduce.page import render_page, render_table
    from editr1.reproduce.results import Reproduction, check_kept

    with reporting():
        start = SMALLEST if size is Size.SMALLEST else Budget()
        budget = load_settings(Budget, values=start.model_dump(), overrides=overrides or [])
        try:
            contrasts = chosen(make_contrasts(budget), only or [])
        except ValueError as error:
            raise ConfigError(f"--only: {error}") from None
        numbers = range(first_seed, first_seed + seeds)
        if list_cells:
            for contrast in contrasts:
                typer.echo(f"{contrast.claim}. {contrast.text}: {contrast.first.cell} against {contrast.second.cell}")
            for cell in with_needs(cell_names(contrasts), make_cells(first_seed, budget)):
                typer.echo(f"  {cell.name}: {cell.what}")
            return
        out = out or Path("runs") / ("reproduction" if size is Size.FULL else "reproduction-smallest")
        out.mkdir(parents=True, exist_ok=True)

        # What a claim alone says must not replace what all of them said.
        end = "".join(f"-{name}" for name in sorted(set(only or [])))

        check_kept(out / f"reproduction{end}.json", budget, numbers)

        def write(found: Reproduction) -> None:
            (out / f"reproduction{end}.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
            (out / f"reproduction{end}.html").write_text(render_page(found), encoding="utf-8")
            (out / f"table{end}.md").write_text(render_table(found), encoding="utf-8")

        with ReproductionView() as view:
            found = run_all(
                contrasts,
                list(numbers),
                budget,
                out,
                command=command_line(),
                watcher=view,
                should_stop=StopFlag(),
                parallel=parallel or min(4, os.cpu_count() or 1),
                on_found=write,
            )
        typer.echo(render_table(found), nl=False)
        typer.echo(f"page: {out / f'reproduction{end}.html'}")
        for run, why in found.failed.items():
            typer.echo(f"failed: {run}: {why}", err=True)
        if found.failed:
            raise typer.Exit(1)
