"""Undo the encoding of large bodies outside the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from .message import Message, unpack


class Unpacker:
    """Unpacks in a thread of its own: the event loop's default threads may all hang in handlers."""

    def __init__(self, queue: str) -> None:
        self._name = f"amqpflow unpack {queue}"
        self._executor: ThreadPoolExecutor | None = None

    async def unpack(self, message: Message) -> None:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, self._name)
        await asyncio.get_running_loop().run_in_executor(self._executor, unpack, message)

    def shutdown(self) -> None:
        """Let the thread end once it has unpacked its message."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)
