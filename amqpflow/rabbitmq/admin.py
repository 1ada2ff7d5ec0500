"""Carry out the changes of a plan: over AMQP what AMQP can do, policies over the management API."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, assert_never

from amqpflow.errors import AmqpflowError, BrokerError, ManagementUnavailableError, RefusedError
from amqpflow.model.resources import Binding, Queue
from amqpflow.model.routes import NativeRetry
from amqpflow.planning.compare.delayed_retry import holds
from amqpflow.planning.values import changes
from amqpflow.planning.values.approvals import Approval, allow_flag
from amqpflow.planning.values.findings import Ref
from amqpflow.planning.values.manifest import to_json

from .connection import Connection, connect
from .management import Management
from .observe import Broker
from .probe import declare_exchange, declare_queue
from .translate import translate

_POLICY_LOOKS, _POLICY_PAUSE = 50, 0.1  #: times and seconds; a policy works within 38 ms of its PUT (fact 11.6e)
_HELD = 405  #: a queue is exclusive to another connection
STEP_TIMEOUT = 60.0  #: seconds for one change; a quorum queue waits for the election of its leader
_CLOSE_TIMEOUT = 5.0  #: seconds to close the channels of a run


class Admin:
    """Executes changes, each on a channel of its own meanwhile. Every change may be executed twice without harm.

    Channels are kept for the next changes, until the end of `async with`.

    Args:
        broker: where the changes are made.
        lock: the exclusive queue that the apply holds there. A deletion opens a connection of its own, by an address
            that may lead to another broker by now (DNS, a load balancer): the lock shows that.
    """

    def __init__(self, broker: Broker, lock: str) -> None:
        self._broker, self._lock = broker, lock
        self._free: list[Any] = []

    async def __aenter__(self) -> Admin:
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(AmqpflowError, TimeoutError), translate():  # lost, or silent: its end closes them
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                while self._free:
                    await self._free.pop().close()

    async def execute(self, change: changes.Change) -> None:
        """Execute one change and wait for the broker's answer.

        Raises:
            PermissionDeniedError, BrokerError: RabbitMQ refused it. The next change can be tried.
            BrokerUnavailableError, ManagementUnavailableError: the connection was lost; the change may have been done.
        """
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                await self._execute(change)
        except TimeoutError as error:
            raise BrokerError(f"RabbitMQ did not answer within {STEP_TIMEOUT:.0f} s") from error
        except (TypeError, ValueError, struct.error) as error:
            raise BrokerError(f"the change cannot be sent over AMQP: {error}") from error

    async def _execute(self, change: changes.Change) -> None:
        match change:
            case changes.CreateExchange(exchange=exchange, delays=delays):
                for queue, native in delays.items():
                    await self._require_delay(queue, native)
                async with self._channel() as channel:
                    await declare_exchange(channel, exchange, exchange.arguments)
            case changes.CreateQueue(queue=queue):
                async with self._channel() as channel:
                    await declare_queue(channel, queue, queue.arguments)
            case changes.Bind(binding=binding) | changes.EnsureBinding(binding=binding):
                await self._bind(binding)
            case changes.PutPolicy(policy=policy):
                await self._management.put_policy(self._broker.address.vhost, policy)
            case changes.RemovePolicy(policy=policy):
                await self._management.delete_policy(self._broker.address.vhost, policy.name)
            case changes.Unbind(binding=binding):
                await self._bind(binding, "unbind")
            case changes.Rebind(binding=binding, replaces=replaced):
                await self._bind(replaced, "unbind")
                await self._bind(binding)
            case changes.Drain():
                return  # to wait is what it does, see `amqpflow.services.provisioning.drain`
            case changes.DeleteQueue(queue=queue, forced=forced):
                await self._delete(queue, forced)
            case changes.DeleteExchange(exchange=exchange):
                async with self._channel() as channel:
                    await channel.exchange_delete(exchange.name, if_unused=True)
            case changes.PutManifest(manifest=manifest):
                await self._management.put_global_parameter(manifest.name, to_json(manifest))
            case changes.RemoveManifest(manifest=manifest):
                await self._management.delete_global_parameter(manifest.name)
            case _:
                assert_never(change)

    async def _require_delay(self, queue: str, native: NativeRetry) -> None:
        """Wait until the effective policy delays rejected messages: a policy works some ms after its PUT."""
        for _ in range(_POLICY_LOOKS):
            effective = await self._management.effective_policy(self._broker.address.vhost, queue)
            if holds(effective, native):
                return
            await asyncio.sleep(_POLICY_PAUSE)
        raise BrokerError(
            f"RabbitMQ does not delay retries of queue {queue}: its effective policy is {dict(effective)}",
            hint=f"amqpflow explain FILE {queue}",
        )

    async def _bind(self, binding: Binding, verb: str = "bind") -> None:
        async with self._channel() as channel:
            call = getattr(channel, f"{binding.destination_type}_{verb}")
            await call(
                binding.destination,
                binding.source,
                routing_key=binding.routing_key,
                arguments=dict(binding.arguments),
            )

    async def _delete(self, queue: Queue, forced: bool) -> None:
        """Delete a queue that was found empty, after one more look.

        A classic queue is deleted if-empty and if-unused. A quorum queue knows neither: it closes the connection over
        them (fact 5.8), so it is looked at just before, on a connection of its own.
        """
        name, beside = f"amqpflow deleting {queue.name}", self._broker.connection
        async with await connect(self._broker.address, name=name, beside=beside) as connection:
            await self._require_lock(connection)
            channel = await connection.admin_channel()
            try:
                found = await channel.queue_counts(queue.name)
            except BrokerError as error:
                if error.missing:
                    return
                raise
            if not forced and (found.ready or found.consumers):
                raise RefusedError(
                    f"queue {queue.name} has {found.ready} messages and {found.consumers} consumers by now",
                    hint=f"to lose them add {allow_flag(Approval('delete', Ref('queue', queue.name)))}",
                )
            guard = {"if_unused": True, "if_empty": True} if queue.type == "classic" and not forced else {}
            with translate():
                await channel.queue_delete(queue.name, **guard)

    async def _require_lock(self, connection: Connection) -> None:
        """Make sure that a connection leads to the broker where the lock is held, where it is exclusive (405)."""
        channel = await connection.admin_channel()
        try:
            await channel.queue_counts(self._lock)
        except BrokerError as error:
            if error.code == _HELD:
                return
            if not error.missing:
                raise
        raise RefusedError(
            f"{connection.address.redacted} leads to another broker than before, or the lock {self._lock} was lost: "
            "nothing is deleted there",
            hint="name one broker, or the nodes of one cluster, and apply again",
        )

    @property
    def _management(self) -> Management:
        if self._broker.management is None:
            raise ManagementUnavailableError(f"policies need the management API: {self._broker.source}")
        return self._broker.management

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[Any]:
        """Open a channel to use alone; errors on it are translated. A refusal closes it."""
        with translate():
            channel = self._free.pop() if self._free else await self._broker.connection.admin_channel()
            yield channel
            # after a failure, or a time-out, an answer may still come, and would be taken for that to the next change
            self._free.append(channel)
