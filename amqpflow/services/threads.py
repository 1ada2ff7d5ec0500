"""Threads for handlers that are not async.

A thread cannot be stopped. A call that runs into its timeout keeps its thread until it ends, so the next one waits for
a free thread before its own clock starts: else it would be called late without ever having run.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

THREAD_NAME = "amqpflow handler"


class Threads:
    """As many threads as a handler may run at once."""

    def __init__(self, size: int, queue: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=size, thread_name_prefix=f"{THREAD_NAME} {queue}")
        self._free = asyncio.Semaphore(size)

    async def acquire(self) -> None:
        """Wait until a thread is free, and reserve it for the next `run`."""
        await self._free.acquire()

    def release(self) -> None:
        """Give up a reserved thread that was not used."""
        self._free.release()

    async def run(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call the function in the reserved thread, which is free again when the call has really ended."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()

        def call() -> tuple[Any, BaseException | None]:
            # handed over as a value: a future cannot carry StopIteration
            try:
                return context.run(function, argument), None
            except BaseException as error:
                return None, error

        def release(_: Future[Any]) -> None:
            try:
                loop.call_soon_threadsafe(self._free.release)
            except RuntimeError:
                pass  # the loop is gone, and with it whoever waits

        call_ended = self._pool.submit(call)
        call_ended.add_done_callback(release)
        try:
            result, error = await asyncio.wrap_future(call_ended)
            if isinstance(error, StopIteration):
                raise RuntimeError("the handler raised StopIteration") from error
            if error is not None:
                raise error
            return result
        finally:
            # this frame is in the traceback: what it kept of the error would be a reference cycle
            result = error = call_ended = None  # type: ignore[assignment]

    def shutdown(self) -> None:
        """Let the threads end; one that is in a handler runs on to its end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
