"""Collect information about this process for the record of a run: the command, code revision, package versions and machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from editr1.launch.checkout import git_revision
from editr1.runs.record import Origin

_PACKAGES = ("editr1", "torch", "transformers", "diffusers", "trl", "accelerate", "peft", "numpy")


def run_origin(command: str) -> Origin:
    """Return the command, code revision, package versions and machine of this process, as fields of a run's record."""
    return Origin(command=command, git_revision=git_revision(), versions=versions(), machine=machine())


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that can influence the results of a run."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return the number of usable cores and the CPU model, such as ``8 cores, AMD EPYC 7B13``."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {model}"
