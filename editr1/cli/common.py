"""What the commands share: errors in one place, the stop flag, the options that several of them take."""

from __future__ import annotations

import errno
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

_PATH_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors that mean that a path given by the user cannot be used."""

SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Override a setting; may be given several times.")
]
ConfigOption = Annotated[Path | None, typer.Option("-f", "--config", help="YAML file with the stage's settings.")]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", envvar="EDITR1_STORE", help="Artifact store: file:///path or s3://bucket/prefix."),
]

ClusterOption = Annotated[
    Path | None,
    typer.Option(
        "--cluster", help="YAML file of cluster settings; default: $EDITR1_CLUSTER_FILE, ~/.config/editr1/cluster.yaml."
    ),
]
NamespaceOption = Annotated[str | None, typer.Option("-n", "--namespace", help="Namespace on the cluster.")]


def cluster_overrides(namespace: str | None) -> list[str]:
    """Command line options as overrides of the cluster's settings."""
    return [f"namespace={namespace}"] if namespace else []


def fail(message: object, code: int) -> typer.Exit:
    """Print ``message`` to standard error, a line a fault, and return the exit to raise."""
    for line in str(message).splitlines():
        typer.secho(f"error: {line}", err=True, fg=typer.colors.RED)
    return typer.Exit(code)


@contextmanager
def reporting() -> Iterator[None]:
    """Turn the errors that a user can act on into lines on standard error and the documented exit codes."""
    from editr1.errors import Editr1Error, ExitCode

    try:
        yield
    except Editr1Error as error:
        raise fail(error, error.exit_code) from None
    except OSError as error:
        if error.filename is None or error.errno not in _PATH_ERRORS:
            raise
        raise fail(f"{error.filename}: {error.strerror}", ExitCode.CONFIG) from None


class StopFlag:
    """Set by the first SIGINT or SIGTERM; a second one ends the program at once."""

    def __init__(self, says: str = "stopping: waiting for a checkpoint (again to give up)") -> None:
        self._stopped, self._says = False, says
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self._stopped

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True
        typer.secho(self._says, err=True)


def command_line() -> str:
    """The command that was typed, to be repeated."""
    return shlex.join(["editr1", *sys.argv[1:]])
