"""The event loop that chat requests run in."""

from __future__ import annotations

import asyncio


def new_runner() -> asyncio.Runner:
    """Return a runner of a new event loop, which is uvloop's where that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
