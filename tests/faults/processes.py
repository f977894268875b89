"""Start the commands of a run, find the processes of a run by their role, and notice the ones that outlive it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.preload import COMMAND, REGISTRY, Template


@dataclass(frozen=True)
class Role:
    """A process of a run: ``command``, ``stage`` (which starts the ranks), ``rank-<n>`` or ``serve``."""

    pid: int
    name: str
    started: float


class Processes:
    """The processes that this process starts, and their descendants, for one fault. ``registry`` is a folder of their roles."""

    def __init__(self, template: Template, registry: Path) -> None:
        registry.mkdir(parents=True, exist_ok=True)
        self._template, self._registry = template, registry
        self._codes: dict[int, int] = {}

    def start(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], output: Path) -> int:
        """Start a module in a session of its own with its output appended to a file, and return its process id."""
        with output.open("ab") as file, open(os.devnull, "rb") as nothing:
            files = {0: nothing.fileno(), 1: file.fileno(), 2: file.fileno()}
            full = {**os.environ, **environment, REGISTRY: str(self._registry)}
            return self._template.start(module, arguments, full, files, session=True, folder=str(self._registry))

    def code(self, pid: int) -> int | None:
        """Return the exit code of a process that was started here; None while it is running."""
        self._reap()
        return self._codes.get(pid)

    def roles(self, stage: str) -> dict[str, Role]:
        """Return the running processes of the run by role. ``stage`` is the kind of the stage concerned."""
        found: dict[str, Role] = {}
        for file in self._registry.iterdir():
            if not file.name.isdigit() or not _alive(int(file.name)):
                continue
            entry = json.loads(file.read_text())
            name = _role(entry["module"], entry["rank"], stage)
            if name:
                role = Role(int(file.name), name, entry["started"])
                if name not in found or found[name].started < role.started:
                    found[name] = role
        return found

    def left(self, grace: float) -> list[str]:
        """Return the processes that are still running after ``grace`` seconds."""
        deadline = time.monotonic() + grace
        while (left := self._running()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def end(self) -> None:
        """Kill everything that is still running."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and (pids := self._pids()):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
            self._reap()

    def _running(self) -> list[str]:
        self._reap()
        return [f"{pid} ({self._name(pid)})" for pid in self._pids()]

    def _name(self, pid: int) -> str:
        file = self._registry / str(pid)
        return json.loads(file.read_text())["module"] if file.is_file() else _command(pid)

    def _pids(self) -> list[int]:
        return [pid for pid in _descendants(os.getpid()) if pid != self._template.pid and _alive(pid)]

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._codes[pid] = os.waitstatus_to_exitcode(status)


def _role(module: str, rank: str | None, stage: str) -> str:
    if module == COMMAND:
        return "command"
    kind = module.rpartition(".")[2]
    if kind == "serve":
        return "serve"
    if kind != stage:
        return ""
    return "stage" if rank is None else f"rank-{rank}"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80]
    except OSError:
        return "ended"


def _descendants(root: int) -> list[int]:
    """Return all descendants of a process. Templates are descendants, too; they end with the process that they belong to."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(folder.name))
    found, queue = list[int](), [root]
    while queue:
        new = children.get(queue.pop(), [])
        found += new
        queue += new
    return found
