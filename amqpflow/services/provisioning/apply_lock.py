"""One apply of a topology at a time: an exclusive queue, which is gone with the connection that declared it.

The connection is the lock's own, so that nothing an apply does can close it. Whoever finds it taken reads who holds it
from the queue's arguments (over the management API, which the holder's connection name is in, too).
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from amqpflow.errors import AmqpflowError, LockedError, LockLostError, PermissionDeniedError
from amqpflow.model.names import applying_lock
from amqpflow.rabbitmq.connection import connect
from amqpflow.rabbitmq.exclusive_lock import ExclusiveLock, acquire
from amqpflow.rabbitmq.observe import Broker
from amqpflow.rabbitmq.same_broker import require_listed
from amqpflow.services.loading.whoami import user

_HOLDER = {"host": "x-amqpflow-host", "pid": "x-amqpflow-pid", "user": "x-amqpflow-user", "since": "x-amqpflow-since"}


class ApplyLock:
    """Held until its connection is closed, or lost. Made by `apply_lock`."""

    def __init__(self, lock: ExclusiveLock, topology: str) -> None:
        self._lock, self._topology = lock, topology

    @property
    def name(self) -> str:
        return self._lock.name

    @property
    def lost(self) -> bool:
        return self._lock.lost

    async def check(self, *, ask: bool = False) -> None:
        """Raise LockLostError when it is not ours any more.

        `ask` the broker, too: a connection that is dead on the way is not always known to be.
        """
        if not self.lost and ask:
            try:
                await self._lock.require()
            except AmqpflowError as error:
                raise self._gone() from error
        if self.lost:
            raise self._gone()

    def _gone(self) -> LockLostError:
        return LockLostError(
            f"the lock on topology {self._topology} was lost: its connection was closed, and another apply may run",
            hint="apply again: it resumes from here",
        )


@asynccontextmanager
async def apply_lock(
    broker: Broker, topology: str, *, timeout: float = 0.0, on_wait: Callable[[str], None] | None = None
) -> AsyncIterator[ApplyLock]:
    """Keep every other apply, prune, destroy and adopt of this topology from beginning, for `timeout` seconds at most.

    `on_wait` is called once with who holds the lock, before waiting.

    Raises:
        LockedError: it is held; the text says by whom, as far as that can be seen.
        PermissionDeniedError: the user may not declare the lock.
        RefusedError: the management API does not know the lock: it is another broker's.
        BrokerUnavailableError, BrokerError: as for `connect`.
    """
    here, name = _here(), applying_lock(topology)
    arguments = {_HOLDER[key]: value for key, value in here.items()}

    async def tell() -> None:
        if on_wait is not None:
            on_wait(await _holder(broker, name))

    connection_name = f"amqpflow lock {topology} {here['host']}"
    async with await connect(broker.address, name=connection_name, beside=broker.connection) as connection:
        try:
            lock = await acquire(connection, name, timeout=timeout, arguments=arguments, on_wait=tell)
        except PermissionDeniedError as error:
            raise PermissionDeniedError(
                str(error),
                hint=f"apply needs the configure permission on {name}; `amqpflow permissions FILE` prints all it needs",
            ) from error
        if lock is None:
            raise LockedError(
                f"topology {topology} is locked: {await _holder(broker, name)}",
                hint="wait for it with `lock_timeout`; the lock ends with that process",
            )
        if broker.management is not None and broker.overview is not None:
            # a proof for every user who may apply, whatever else that user may declare
            await require_listed(connection, broker.management, broker.overview, name, lock.arguments)
        try:
            yield ApplyLock(lock, topology)
        finally:
            await lock.release()


def _here() -> Mapping[str, str]:
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"host": socket.gethostname(), "pid": str(os.getpid()), "user": user(), "since": since}


async def _holder(broker: Broker, name: str) -> str:
    """Say who holds it: another apply holds it: pid 123 of user deploy on build-7, since 2026-11-22T21:50:00Z."""
    arguments: Mapping[str, Any] = {}
    if broker.management is not None:
        try:
            found = await broker.management.queue_statistics(broker.address.vhost, name)
            arguments = (found or {}).get("arguments") or {}
        except AmqpflowError:
            pass
    values = {key: arguments.get(argument) for key, argument in _HOLDER.items()}
    if not all(isinstance(value, str) for value in values.values()):
        return f"another amqpflow command holds the queue {name}; the management UI lists its connection"
    return "another amqpflow command holds it: pid {pid} of user {user} on {host}, since {since}".format(**values)
