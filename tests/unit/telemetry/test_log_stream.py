"""The log follows standard error when it is replaced."""

import io
import logging

import pytest

from editr1.telemetry.log import configure_logging


def test_log_is_written_to_the_current_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    closed, current = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", closed)
    configure_logging()
    closed.close()
    monkeypatch.setattr("sys.stderr", current)
    logging.getLogger("editr1").warning("disk is nearly full")
    assert current.getvalue().rstrip().endswith("disk is nearly full")
    assert len(current.getvalue().splitlines()) == 1
