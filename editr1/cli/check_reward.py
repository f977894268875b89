"""``editr1 check-reward``: check whether a reward service keeps to the API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editr1.cli.common import NEGATIVE_RESULT, reporting
from editr1.terminal.text import echo


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("check-reward")(check_reward)


def check_reward(
    server: Annotated[str, typer.Option(help="Address of the reward server.", envvar="EDITR1_REWARD_SERVER")],
    items: Annotated[
        Path | None,
        typer.Option(
            help="JSON file with edits to score, in the format of the field items of a score request.  [default: three generated edits]"
        ),
    ] = None,
    digest: Annotated[
        str | None, typer.Option(help="Digest of the model, for a server that does not report it at /v1/info.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1.0, max=86400.0, help="Time limit of each request in seconds.")] = 60.0,
) -> None:
    """Check whether a reward server keeps to the reward server API, so that its scores can be used.

    It is meant for authors of other reward servers. The command sends a few score requests and applies the rules that every stage
    applies to responses. Exits with 1 if a check fails.

    Example: editr1 check-reward --server http://127.0.0.1:8000
    """
    from editr1.config.loader import ConfigError
    from editr1.runs.spec import is_address
    from editr1.serving.conformance import check_service
    from editr1.serving.golden import load_golden
    from editr1.serving.identity import is_model_digest

    with reporting():
        if not is_address(server):
            raise ConfigError(f"--server: {server!r} is not a valid address; give one such as http://127.0.0.1:8000")
        if digest is not None and not is_model_digest(digest):
            raise ConfigError(
                f"--digest: {digest!r} is not the digest of a model; give sha256:<64 hex digits> or hub:<name>@<commit>"
            )
        try:
            edits = load_golden(items) if items else None
        except ValueError as error:
            raise ConfigError(f"--items: {error}") from None
        failed = False
        for found in check_service(server.rstrip("/"), items=edits, digest=digest, seconds=timeout):
            failed |= not found.ok
            echo(f"{'ok' if found.ok else 'FAIL':6}{found.check}: {found.detail}")
    if failed:
        raise typer.Exit(NEGATIVE_RESULT)
