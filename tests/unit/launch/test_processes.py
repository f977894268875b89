"""How a stage process on this machine is ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

from editr1.launch.local.processes import terminate

IGNORES_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


def stubborn() -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", IGNORES_SIGTERM], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_process_that_ignores_sigterm_is_killed_after_the_grace_period() -> None:
    process = stubborn()
    terminate(process, 0.2)
    assert process.returncode == -signal.SIGKILL


def test_second_interrupt_kills_the_process_at_once() -> None:
    process = stubborn()
    start = time.monotonic()
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        terminate(process, 60.0)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert process.returncode == -signal.SIGKILL
    assert time.monotonic() - start < 30.0
