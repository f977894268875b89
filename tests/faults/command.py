"""Run ``python -m tests.faults`` from a test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_command(out: Path, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a campaign in a process of its own, with the folder ``out``."""
    command = [sys.executable, "-m", "tests.faults", "--out", str(out), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "operators")))}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
