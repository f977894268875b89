"""``editr1 score``: score one edit with a reward server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editr1.cli.common import NEGATIVE_RESULT, JsonOption, fail, reporting
from editr1.terminal.text import echo

if TYPE_CHECKING:
    from editr1.data.types import Principle, Scored

DEFAULT_PRINCIPLES = (
    ("Was the instruction carried out?", "Instruction Following"),
    ("Is everything that the instruction does not name unchanged?", "Feature Preservation"),
    ("Is the picture free of visible faults?", "Image Quality"),
)
"""Questions and categories of the principles that are used if --principles is not given."""


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("score")(score)


def score(
    source: Annotated[Path, typer.Option(help="Source image.")],
    edited: Annotated[Path, typer.Option(help="Edited image.")],
    instruction: Annotated[str, typer.Option(help="Edit instruction.")],
    server: Annotated[str, typer.Option(help="Address of the reward server.", envvar="EDITR1_REWARD_SERVER")],
    principles: Annotated[
        Path | None,
        typer.Option(
            help='JSON file with a list of principles {"question", "category"}.  [default: one question per category]'
        ),
    ] = None,
    num_traces: Annotated[int, typer.Option(min=1, help="Number of traces per edit. Their scores are averaged.")] = 1,
    deadline: Annotated[
        float, typer.Option(min=0.1, help="Maximum duration of the request in seconds, including retries.")
    ] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Score one edit with a reward server, and print the verdict on each principle (a yes/no question about the edit).

    Example: editr1 score --source a.png --edited b.png --instruction "make the sky pink" --server http://127.0.0.1:8000
    """
    from editr1.config.loader import ConfigError, validate
    from editr1.config.serve import ClientConfig
    from editr1.data.rules import row_violations
    from editr1.data.types import ScoreFailure, ScoreItem
    from editr1.runs.spec import is_address
    from editr1.serving.client import RewardClient

    with reporting():
        questions = _principles(principles)
        if not is_address(server):
            raise ConfigError(
                f"--server: {server!r} is not a valid address; use an address such as http://127.0.0.1:8000"
            )
        images = {"source": {"data": _image(source)}, "edited": {"data": _image(edited)}}
        item = validate(ScoreItem, {**images, "instruction": instruction, "principles": questions})
        for violation in row_violations(item):
            raise ConfigError(f"{violation.field}: {violation.rule} (got {violation.value!r:.80})")
        client_config = validate(ClientConfig, {"deadline_seconds": deadline, "wait_unreachable": False})
        with RewardClient([server], config=client_config) as client:
            outcome = client.score([item], num_traces=num_traces)[0]
    if as_json:
        echo(outcome.model_dump_json(indent=2))
    if isinstance(outcome, ScoreFailure):
        raise fail(f"no score: {outcome.cause}: {outcome.detail}", NEGATIVE_RESULT)
    if not as_json:
        _print(outcome, questions)


def _print(scored: Scored, principles: tuple[Principle, ...]) -> None:
    from rich.table import Table

    from editr1.terminal.console import output_console

    table = Table("principle", "category", "yes", title=f"score {scored.score:.2f} of 10")
    for index, principle in enumerate(principles):
        answers = [verdict.scores[index] for verdict in scored.verdicts]
        yes = f"{sum(answers)}/{len(answers)}" if answers else "not given"
        table.add_row(principle.question, principle.category.value, yes)
    console = output_console()
    console.print(table)
    if scored.verdicts:
        console.print(scored.verdicts[0].reasoning)
    console.print(f"model {scored.model_digest[:19]}", style="dim")


def _principles(path: Path | None) -> tuple[Principle, ...]:
    from editr1.config.loader import ConfigError, validate
    from editr1.data.given_json import parse_given_json
    from editr1.data.types import Principle

    if path is None:
        return tuple(Principle.model_validate({"question": q, "category": c}) for q, c in DEFAULT_PRINCIPLES)
    try:
        given = parse_given_json(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: not a list of principles in JSON: {error}") from None
    if not isinstance(given, list):
        raise ConfigError(f"{path}: must contain a list of principles, got {type(given).__name__}")
    return tuple(validate(Principle, one, where=f"{path}: {index}") for index, one in enumerate(given))


def _image(path: Path) -> bytes:
    from editr1.config.loader import ConfigError
    from editr1.data.images import ImageError, decode_image

    try:
        data = path.read_bytes()
        decode_image(data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    return data
