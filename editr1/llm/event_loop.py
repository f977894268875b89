"""Create the event loop for sending chat requests."""

from __future__ import annotations

import asyncio


def new_runner() -> asyncio.Runner:
    """Return an asyncio runner with a new event loop. If uvloop is installed, its event loop is used."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
