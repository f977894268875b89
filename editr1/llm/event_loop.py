"""The event loop in which chat requests run."""

from __future__ import annotations

import asyncio


def new_runner() -> asyncio.Runner:
    """Return a runner with a new event loop, which is a uvloop event loop if uvloop is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
