"""One reader of a parking queue at a time: two would each hold a part, and give it back in two parts.

An exclusive consumer would be the obvious means, but a quorum queue admits a second one. An exclusive queue is refused
to every other connection, and is gone with the connection that holds it, also when the process was killed (fact 15).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from amqpflow.errors import AmqpflowError, BrokerError, PermissionDeniedError, RefusedError, StoppedError
from amqpflow.model.names import reading_lock
from amqpflow.rabbitmq.connection import Connection
from amqpflow.rabbitmq.translate import translate

LOCK_WAIT = 30.0  #: seconds to wait for another reader
_LOCKED = 405


@asynccontextmanager
async def reading_alone(
    connection: Connection,
    queue: str,
    *,
    wait: float = LOCK_WAIT,
    on_wait: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
) -> AsyncIterator[bool]:
    """
    Keep other amqpflow commands from reading the queue.

    Yields:
        False when the user may not declare the lock: it takes the configure permission on `reading_lock(queue)`.
        Reading goes on then, and order is kept only as long as nobody else reads.

    Raises:
        RefusedError: another command was still reading after `wait` seconds. StoppedError: stop was set while waiting.
    """
    channel = await _acquire(connection, queue, wait, on_wait, stop or asyncio.Event())
    try:
        yield channel is not None
    finally:
        if channel is not None and not channel.is_closed:
            try:
                with translate():
                    await channel.queue_delete(reading_lock(queue))
                    await channel.close()
            except AmqpflowError:
                pass


async def _acquire(
    connection: Connection, queue: str, wait: float, on_wait: Callable[[], None] | None, stop: asyncio.Event
) -> Any:
    deadline, told = asyncio.get_running_loop().time() + wait, False
    while True:
        channel = await connection.admin_channel()
        try:
            with translate():
                await channel.queue_declare(
                    reading_lock(queue), durable=False, exclusive=True, arguments={"x-queue-type": "classic"}
                )
        except PermissionDeniedError:
            return None
        except BrokerError as error:
            if error.code != _LOCKED:
                raise
        else:
            return channel
        if stop.is_set():
            raise StoppedError(f"interrupted while another amqpflow command was reading {queue}; nothing was done")
        if asyncio.get_running_loop().time() >= deadline:
            raise RefusedError(
                f"another amqpflow command is reading {queue}",
                hint="wait until it is done; its connection is named in the management page",
            )
        if on_wait is not None and not told:
            on_wait()
            told = True
        try:
            async with asyncio.timeout(0.2):
                await stop.wait()
        except TimeoutError:
            pass
