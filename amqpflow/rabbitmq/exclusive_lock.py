"""A lock that the broker keeps: an exclusive queue.

Every other connection is refused it, and it is gone with the connection that holds it, also when the process was killed
(fact 15).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from amqpflow.errors import AmqpflowError, BrokerError

from .connection import Connection
from .rpc import RpcChannel
from .translate import translate

_HELD = 405  #: the queue is exclusive to another connection
_POLL = 0.2  #: seconds between two tries
_ANSWER_TIMEOUT = 10.0  #: seconds for the broker to say whether the queue is there
_RELEASE_TIMEOUT = 5.0  #: seconds for the broker to delete it


class ExclusiveLock:
    """Held until it is released, or until its connection or channel ends. Made by `acquire`."""

    def __init__(self, connection: Connection, channel: RpcChannel, name: str, arguments: Mapping[str, str]) -> None:
        self._connection, self._channel = connection, channel
        self.name, self.arguments = name, arguments  #: of the queue

    @property
    def lost(self) -> bool:
        """Whether its connection or channel is closed."""
        return self._connection.is_closed or bool(self._channel.is_closed)

    async def require(self) -> None:
        """Ask the broker for the queue. Raises AmqpflowError: it is not there, or there is no answer within 10 s."""
        with translate():
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                await self._channel.queue_counts(self.name)

    async def release(self) -> None:
        """Delete the queue at once: RabbitMQ deletes it some time after the connection is closed. Never raises."""
        if self.lost:
            return
        try:
            with translate():
                async with asyncio.timeout(_RELEASE_TIMEOUT):
                    await self._channel.queue_delete(self.name)
                    await self._channel.close()
        except AmqpflowError:
            pass  # it ends with its connection


async def acquire(
    connection: Connection,
    name: str,
    *,
    timeout: float,
    arguments: Mapping[str, str] | None = None,
    stop: asyncio.Event | None = None,
    on_wait: Callable[[], Awaitable[None]] | None = None,
) -> ExclusiveLock | None:
    """Take a lock, or wait for it; None when it was held all the time, or `stop` was set.

    Args:
        connection: that holds it.
        name: of the queue.
        timeout: seconds to wait.
        arguments: of the queue, beside its type: a command that finds it taken can read them.
        stop: ends the wait.
        on_wait: called once before waiting.

    Raises:
        PermissionDeniedError: the user has no configure permission on the name.
        BrokerError, BrokerUnavailableError: the broker refused something else, or the connection was lost.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    stop, arguments = stop or asyncio.Event(), {"x-queue-type": "classic", **(arguments or {})}
    while True:
        channel = await connection.admin_channel()
        try:
            with translate():
                await channel.queue_declare(name, durable=False, exclusive=True, arguments=arguments)
            return ExclusiveLock(connection, channel, name, arguments)
        except BrokerError as error:
            if error.code != _HELD:
                raise
        if stop.is_set() or asyncio.get_running_loop().time() >= deadline:
            return None
        if on_wait is not None:
            await on_wait()
            on_wait = None
        try:
            async with asyncio.timeout(_POLL):
                await stop.wait()
        except TimeoutError:
            pass
