"""Handle Ctrl-C: the first stops in order, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import TypeVar

from amqpflow.cli.exit_codes import INTERRUPTED

T = TypeVar("T")


def run_until_stopped(work: Callable[[asyncio.Event], Awaitable[T]], *, says: str) -> tuple[T, bool]:
    """Run `work(stop)`, and return its result and whether SIGINT or SIGTERM set `stop`.

    The second signal ends the process at once. That loses nothing: RabbitMQ requeues unacked messages.

    Args:
        work: returns soon after `stop` was set.
        says: what happens until then, printed after Ctrl-C.
    """
    stopped = False

    async def run() -> T:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal(_: int, __: FrameType | None) -> None:
            nonlocal stopped
            if stopped:
                if sys.stderr.isatty():
                    os.write(2, b"\x1b[?25h\n")  # a progress bar hides the cursor
                os._exit(INTERRUPTED)
            stopped = True
            os.write(2, f"\nStopping: {says}. Ctrl-C again stops at once.\n".encode())
            loop.call_soon_threadsafe(stop.set)

        before = {each: signal.signal(each, on_signal) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            return await work(stop)
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    return asyncio.run(run()), stopped
