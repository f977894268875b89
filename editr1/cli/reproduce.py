"""``editr1 reproduce``: test the paper's claims with small runs on generated images (the shapes dataset)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editr1.cli.common import NEGATIVE_RESULT, SetOption, StopFlag, command_line, reporting
from editr1.terminal.text import echo

if TYPE_CHECKING:
    from editr1.config.reproduce import Budget
    from editr1.reproduce.claims import Comparison
    from editr1.reproduce.orchestrate import ReproductionRequest


class Size(StrEnum):
    """Values of the option --size."""

    FULL = "full"
    SMALLEST = "smallest"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("reproduce")(reproduce)


def reproduce(
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Number of seeds.")] = 5,
    first_seed: Annotated[
        int, typer.Option(min=0, help="First seed. The other seeds are the integers that follow it.")
    ] = 1001,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Test only this claim: curation, gcpo, size, traces, editor or gsb. The option can be repeated."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for runs, artifacts and results.  [default: runs/reproduction or runs/reproduction-smallest]"
        ),
    ] = None,
    size: Annotated[
        Size, typer.Option(help="Size of the experiments. The results of 'smallest' are meaningless.")
    ] = Size.FULL,
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of parallel runs. Each needs about 1.5 GB of memory.  [default: one per core, at most 4]",
        ),
    ] = None,
    overrides: SetOption = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="List the claims and the runs without starting any run.")
    ] = False,
) -> None:
    """Test the paper's claims with small runs on the shapes dataset (generated images with known ground truth).

    A claim is tested by comparing runs on the same held-out pairs or cases, for several seeds. Completed runs are not
    repeated, so an interrupted reproduction continues where it stopped. The results are written to reproduction.html,
    reproduction.json and table.md. With --only, the file names contain the names of the claims.

    Example: editr1 reproduce --seeds 1 --only gcpo

    Example: editr1 reproduce --seeds 5 --out runs/reproduction --set iterations=90
    """
    import os

    from editr1.reproduce.orchestrate import ReproductionRequest

    with reporting():
        budget = _budget(size, overrides)
        comparisons = _comparisons(budget, only)
        if list_only:
            _print_list(comparisons, first_seed, budget)
            return
        request = ReproductionRequest(
            comparisons=comparisons,
            seeds=range(first_seed, first_seed + seeds),
            budget=budget,
            folder=out or Path("runs") / ("reproduction" if size is Size.FULL else "reproduction-smallest"),
            command=command_line(),
            parallel=parallel or min(4, os.cpu_count() or 1),
        )
        _run_and_report(request, only or [])


def _run_and_report(request: ReproductionRequest, only: list[str]) -> None:
    """Run all experiments of a reproduction, and print the table of results. Exits with 1 if an experiment failed."""
    from editr1.cli.reproduction_view import ReproductionView
    from editr1.reproduce.orchestrate import reproduce as run_all
    from editr1.reproduce.output import OutputFiles
    from editr1.reproduce.page import render_table

    files = OutputFiles(request.folder, only)
    files.prepare(request.budget, request.seeds)
    with ReproductionView(on_results=files.write) as view:
        found = run_all(request, view, StopFlag())
    echo(render_table(found), nl=False)
    echo(f"page: {files.page}")
    for run, reason in found.failed.items():
        echo(f"failed: {run}: {reason}", err=True)
    if found.failed:
        raise typer.Exit(NEGATIVE_RESULT)


def _budget(size: Size, overrides: list[str] | None) -> Budget:
    from editr1.config.loader import load_settings
    from editr1.config.reproduce import SMALLEST, Budget

    start = SMALLEST if size is Size.SMALLEST else Budget()
    return load_settings(Budget, values=start.model_dump(), overrides=overrides or [])


def _comparisons(budget: Budget, only: list[str] | None) -> list[Comparison]:
    from editr1.config.loader import ConfigError
    from editr1.reproduce.claims import make_comparisons, select_claims

    try:
        return select_claims(make_comparisons(budget), only or [])
    except ValueError as error:
        raise ConfigError(f"--only: {error}") from None


def _print_list(comparisons: list[Comparison], seed: int, budget: Budget) -> None:
    from editr1.reproduce.claims import experiment_names
    from editr1.reproduce.experiments import make_experiments, with_dependencies

    for item in comparisons:
        echo(f"{item.claim}. {item.text}: {item.first.experiment} against {item.second.experiment}")
    for experiment in with_dependencies(experiment_names(comparisons), make_experiments(seed, budget)):
        echo(f"  {experiment.name}: {experiment.what}")
