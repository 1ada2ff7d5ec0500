"""Wait for the first of several things."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any


async def first_of(*awaitables: Awaitable[Any], within: float | None = None) -> None:
    """Return when one has ended, or after so many seconds. The others are cancelled, and have ended."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)


def wake(waiting: asyncio.Future[None]) -> None:
    """End a wait that has not ended."""
    if not waiting.done():
        waiting.set_result(None)


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they have ended."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; False when it was not set within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return event.is_set()
