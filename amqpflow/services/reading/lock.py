"""One reader of a parking queue at a time: two would each hold a part, and requeue it in two parts.

An exclusive consumer would be the obvious means, but a quorum queue admits a second one: an `ExclusiveLock` is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from amqpflow.errors import PermissionDeniedError, RefusedError, StoppedError
from amqpflow.model.names import reading_lock
from amqpflow.rabbitmq.connection import Connection
from amqpflow.rabbitmq.exclusive_lock import acquire

LOCK_WAIT = 30.0  #: seconds to wait for another reader


@asynccontextmanager
async def reading_alone(
    connection: Connection,
    queue: str,
    *,
    wait: float = LOCK_WAIT,
    on_wait: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
) -> AsyncIterator[bool]:
    """Keep other amqpflow commands from reading the queue.

    Yields:
        False when the user may not declare the lock: it takes the configure permission on `reading_lock(queue)`.
            Reading continues then, and order is kept only as long as no other command reads.

    Raises:
        RefusedError: another command was still reading after `wait` seconds. StoppedError: stop was set while waiting.
    """
    stop = stop or asyncio.Event()

    async def tell() -> None:
        if on_wait is not None:
            on_wait()

    lock, denied = None, False
    try:
        lock = await acquire(connection, reading_lock(queue), timeout=wait, stop=stop, on_wait=tell)
    except PermissionDeniedError:
        denied = True
    if lock is None and not denied:
        if stop.is_set():
            raise StoppedError(f"interrupted while another amqpflow command was reading {queue}; nothing was done")
        raise RefusedError(
            f"another amqpflow command is reading {queue}",
            hint="wait until it ends; the management UI lists its connection",
        )
    try:
        yield not denied
    finally:
        if lock is not None:
            await lock.release()
