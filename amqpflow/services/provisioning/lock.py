"""One apply of a topology at a time: an exclusive queue, which is gone with the connection that declared it.

The connection is the lock's own, so that nothing an apply does can close it. Whoever finds it taken reads who holds it
from the queue's arguments (over the management API, which the holder's connection name is in, too).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from amqpflow.errors import AmqpflowError, BrokerError, LockedError, LockLostError, PermissionDeniedError
from amqpflow.model.names import applying_lock
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.rabbitmq.observe import Broker
from amqpflow.rabbitmq.same_broker import require_listed
from amqpflow.rabbitmq.translate import translate
from amqpflow.services.loading.whoami import user

_HELD = 405
_HOLDER = {"host": "x-amqpflow-host", "pid": "x-amqpflow-pid", "user": "x-amqpflow-user", "since": "x-amqpflow-since"}


class ApplyLock:
    """Held until its connection is closed, or lost. Made by `applying_alone`."""

    def __init__(self, connection: Connection, channel: Any, topology: str) -> None:
        self._connection, self._channel, self._topology = connection, channel, topology

    @property
    def name(self) -> str:
        """The queue that is held."""
        return applying_lock(self._topology)

    @property
    def lost(self) -> bool:
        return self._connection.is_closed or bool(self._channel.is_closed)

    async def check(self, *, ask: bool = False) -> None:
        """
        Make sure that it is still ours.

        Args:
            ask: ask the broker, too: a connection that is dead on the way is not always known to be.

        Raises:
            LockLostError: it is not.
        """
        if not self.lost and ask:
            try:
                async with asyncio.timeout(10):
                    await self._channel.queue_counts(self.name)
            except (AmqpflowError, TimeoutError) as error:
                raise self._gone() from error
        if self.lost:
            raise self._gone()

    def _gone(self) -> LockLostError:
        return LockLostError(
            f"the lock on topology {self._topology} was lost: its connection was closed, and another apply may run",
            hint="apply again: it goes on from here",
        )


@asynccontextmanager
async def applying_alone(
    broker: Broker, topology: str, *, timeout: float = 0.0, on_wait: Callable[[str], None] | None = None
) -> AsyncIterator[ApplyLock]:
    """
    Keep every other apply, prune, destroy and adopt of this topology from beginning.

    Args:
        broker: where the topology is.
        topology: its name.
        timeout: seconds to wait for another one that holds it.
        on_wait: told once who holds it, before waiting.

    Raises:
        LockedError: it is held; the text says by whom, as far as that can be seen.
        PermissionDeniedError: the user may not declare the lock.
        RefusedError: the management API does not know the lock: it is another broker's.
        BrokerUnavailableError, BrokerError: as for `connect`.
    """
    name = f"amqpflow lock {topology} {_here()['host']}"
    async with await connect(broker.address, name=name, beside=broker.connection) as connection:
        channel = await _acquired(broker, connection, topology, timeout, on_wait)
        try:
            yield ApplyLock(connection, channel, topology)
        finally:
            await _released(channel, applying_lock(topology))


async def _released(channel: Any, name: str) -> None:
    """Free it before the connection is closed: RabbitMQ deletes what was exclusive some time after that."""
    if channel.is_closed:
        return
    try:
        with translate():
            async with asyncio.timeout(5):
                await channel.queue_delete(name)
    except (AmqpflowError, TimeoutError):
        pass  # it ends with its connection


async def _acquired(
    broker: Broker, connection: Connection, topology: str, timeout: float, on_wait: Callable[[str], None] | None
) -> Any:
    deadline, told = asyncio.get_running_loop().time() + timeout, False
    name = applying_lock(topology)
    arguments = {"x-queue-type": "classic"} | {_HOLDER[key]: value for key, value in _here().items()}
    while True:
        channel = await connection.admin_channel()
        try:
            with translate():
                await channel.queue_declare(name, durable=False, exclusive=True, arguments=arguments)
            if broker.management is not None and broker.overview is not None:
                # a proof for every user who may apply, whatever else that user may declare
                await require_listed(connection, broker.management, broker.overview, name, arguments)
            return channel
        except PermissionDeniedError as error:
            raise PermissionDeniedError(
                str(error), hint=f"applying takes the configure permission on {name}"
            ) from error
        except BrokerError as error:
            if error.code != _HELD:
                raise
        if asyncio.get_running_loop().time() >= deadline:
            holder = await _holder(broker, name)
            raise LockedError(
                f"topology {topology} is locked: {holder}",
                hint="wait for it with --lock-timeout; when that process is gone the lock is gone, too",
            )
        if on_wait is not None and not told:
            on_wait(await _holder(broker, name))
            told = True
        await asyncio.sleep(0.2)


def _here() -> Mapping[str, str]:
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"host": socket.gethostname(), "pid": str(os.getpid()), "user": user(), "since": since}


async def _holder(broker: Broker, name: str) -> str:
    """another apply holds it: pid 123 of user deploy on build-7, since 2026-11-22T21:50:00Z."""
    arguments: Mapping[str, Any] = {}
    if broker.management is not None:
        try:
            found = await broker.management.queue_statistics(broker.address.vhost, name)
            arguments = (found or {}).get("arguments") or {}
        except AmqpflowError:
            pass
    values = {key: arguments.get(argument) for key, argument in _HOLDER.items()}
    if not all(isinstance(value, str) for value in values.values()):
        return f"another amqpflow command holds the queue {name}; the management page names its connection"
    return "another amqpflow command holds it: pid {pid} of user {user} on {host}, since {since}".format(**values)
