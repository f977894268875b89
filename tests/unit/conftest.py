"""Isolate the tests of one worker process from one another."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Undo ``configure_logging``: otherwise the log of a later test's commands would be part of their output."""
    loggers = [logging.getLogger(name) for name in (None, "editr1", "urllib3")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
