"""Makes callouts with clients for threads, in event loops that the libraries of clients do not support (trio)."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.to_thread
from anyio.lowlevel import current_token

from proxywasm_host.runtime.effects import Callout, Reply

__all__ = ["in_thread", "on_asyncio"]


def on_asyncio() -> bool:
    """Whether this event loop is an asyncio loop."""
    return isinstance(current_token().native_token, asyncio.AbstractEventLoop)


async def in_thread(client: Any, callout: Callout, *conversation: Any) -> Reply:
    """Make a callout with a client for threads. The callout is cancelled with the task that waits for it."""
    ended = False
    try:
        limiter = anyio.CapacityLimiter(1)  # the host limits the number of callouts
        reply: Reply = await anyio.to_thread.run_sync(
            client, callout, *conversation, abandon_on_cancel=True, limiter=limiter
        )
        ended = True
        return reply
    finally:
        if not ended:
            client.cancel(callout)
            for each in conversation:
                each.cancel()
