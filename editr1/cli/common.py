"""Code shared by the commands: common options, error reporting and signal handling."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from editr1.errors import Editr1Error, ExitCode, failure_code, is_disk_full
from editr1.terminal.text import echo

if TYPE_CHECKING:
    from editr1.artifacts import ArtifactStore

NEGATIVE_RESULT = ExitCode.UNEXPECTED
"""Exit code of a command with a negative result: a check failed, a run no longer exists, or an edit has no score."""
_PATH_ERRORS = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)
"""Values of ``errno`` which indicate that a path given by the user cannot be used."""

SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Override a setting. The option can be repeated.")
]
ConfigOption = Annotated[Path | None, typer.Option("-f", "--config", help="YAML file with the settings of the stage.")]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", envvar="EDITR1_STORE", help="Artifact store: file:///path or s3://bucket/prefix."),
]

ClusterOption = Annotated[
    Path | None,
    typer.Option(
        "--cluster",
        help="YAML file with cluster settings.  [default: $EDITR1_CLUSTER_FILE or ~/.config/editr1/cluster.yaml]",
    ),
]
RunFileArgument = Annotated[Path, typer.Argument(help="Run file: a YAML file of kind EditRun.")]
DEFAULT_RUNS_DIR = Path("runs")
RunsDirOption = Annotated[
    Path, typer.Option("--runs-dir", envvar="EDITR1_RUNS_DIR", help="Folder that contains the folders of local runs.")
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Name of the run, instead of the name in the run file. Finished stages are reused."),
]
ReplaceOption = Annotated[
    bool,
    typer.Option("--replace", help="Replace the record of a run with the same name and different settings or inputs."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")]
NamespaceOption = Annotated[str | None, typer.Option("-n", "--namespace", help="Kubernetes namespace.")]


def open_store_option(store: str | None, cluster: Path | None) -> ArtifactStore | None:
    """Open the store of the option --store; None if neither the store nor a cluster file is given.

    The endpoint of a store on S3 comes from the cluster settings, as in the commands for runs on a cluster. If only
    ``cluster`` is given, the URL also comes from the cluster settings. Raises ConfigError.
    """
    if store is None and cluster is None:
        return None
    if store is not None and not store.startswith("s3://"):
        from editr1.runs.find import open_existing_store

        return open_existing_store(store)
    from editr1.launch.kubernetes.connect import cluster_store, load_cluster

    return cluster_store(load_cluster(cluster), store)


def cluster_overrides(namespace: str | None) -> list[str]:
    """Return the overrides of the cluster settings for the command line option --namespace."""
    return [f"namespace={namespace}"] if namespace else []


def fail(message: object, code: int) -> typer.Exit:
    """Print each line of ``message`` as an error, and return an exception.

    Raising it exits the command with ``code``.
    """
    for line in str(message).splitlines():
        echo(f"error: {line}", err=True, fg=typer.colors.RED)
    return typer.Exit(code)


@contextmanager
def reporting(writes: Path | None = None) -> Iterator[None]:
    """Context manager that handles errors that the user can fix: it prints the message and exits with the error's exit code.

    ``writes`` is the folder into which the command writes. It is named if a disk is full and the error does not name a file.
    """
    try:
        yield
    except Editr1Error as error:
        raise fail(error, failure_code(error.exit_code)) from None
    except Exception as error:
        if is_disk_full(error):
            raise fail(
                f"{_full_path(error, writes)}; free some space and repeat the command", ExitCode.TRANSIENT
            ) from None
        if not isinstance(error, OSError):
            raise
        raise _path_failure(error) from None


def _full_path(error: Exception, writes: Path | None) -> str:
    """Return the message of an error about a full disk, with the path if it is known."""
    if not isinstance(error, OSError) or error.errno is None:
        return (str(error).splitlines() or [type(error).__name__])[0]
    path = error.filename if error.filename is not None else writes
    return os.strerror(error.errno) if path is None else f"{path}: {os.strerror(error.errno)}"


def _path_failure(error: OSError) -> Exception:
    """Return the exception that ends the command if ``error`` is a file system error; otherwise return ``error`` itself."""
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.filename is None or error.errno not in _PATH_ERRORS:
        return error
    return fail(f"{where}{error.strerror}", ExitCode.CONFIG)


class StopFlag:
    """Callable that returns True after SIGINT or SIGTERM was received. A second signal raises KeyboardInterrupt."""

    def __init__(self, message: str = "stopping after the next checkpoint; press Ctrl-C again to stop at once") -> None:
        self._stopped, self._message = False, message
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        """Return True if a signal was received."""
        return self._stopped

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True
        echo(self._message, err=True)


def command_line() -> str:
    """Return the command line of this process, quoted for a shell."""
    return shlex.join(["editr1", *sys.argv[1:]])
