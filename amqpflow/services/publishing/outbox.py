"""Publish on a connection of its own, opened on first use and again after it was lost.

In: encoded messages. Out: for each, once, whether the broker has it.

Consumers never publish where they consume: a publish that closes its channel would take every unacked delivery with it,
and a broker short of memory or disk stops reading from connections that publish, acks included
(https://www.rabbitmq.com/docs/alarms).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any

from amqpflow.errors import (
    AmqpflowError,
    BrokerError,
    BrokerUnavailableError,
    PermissionDeniedError,
    PublishForbiddenError,
    PublishRefusedError,
    PublishUncertainError,
    UnpublishableError,
    UnroutableError,
)
from amqpflow.model.message import Publish
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.confirms import Settled, Ticket, withdrawn_error
from amqpflow.rabbitmq.connection import ANOTHER_LOGIN, CLOSE_TIMEOUT, Connection

LAST_CONFIRMS = 10.0  #: seconds for outstanding confirms on a connection that is left for another login


class Outbox:
    """Publishes, and reports what became of each message. Safe for many tasks of one event loop."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._unblocked: asyncio.Future[None] | None = None
        self._refused = False
        self._opening = asyncio.Lock()
        self._one_at_a_time = asyncio.Lock()
        self._closed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        #: exchanges whose last publish closed its channel: missing, or without permission. Messages for them are
        #: published alone until one is taken, so that they make no other publish uncertain
        self.alone: set[str] = set()

    @property
    def blocked(self) -> str | None:
        """Return why the broker blocks publishes now (an alarm); None when it does, as far as is known."""
        return self._connection.blocked if self._connection is not None and not self._connection.is_closed else None

    def unblocked(self) -> asyncio.Future[None]:
        """Return a future, done once the broker unblocks publishes or the blocked connection is lost."""
        waiting = self._unblocked = self._unblocked or asyncio.get_running_loop().create_future()
        if self.blocked is None:
            self._blocked_changed(None)
        return waiting

    def _blocked_changed(self, reason: str | None) -> None:
        if reason is None and self._unblocked is not None:
            waiting, self._unblocked = self._unblocked, None
            waiting.set_result(None)

    @property
    def is_open(self) -> bool:
        """Return whether `post` publishes at once."""
        return self._channel is not None and not self._channel.is_closed and not self._worn_out

    async def open(self) -> None:
        """Connect now. Else the first publish does, and those made meanwhile may overtake it."""
        await self._open()

    def post(self, message: Publish, settled: Settled, ticket: Ticket | None = None) -> None:
        """Publish mandatory, without a future or a task for each while the channel is open: see `Channel.post`.

        `settled` is called once, perhaps at once: with None when the message is confirmed, else with one of the errors
        below. Await `room` between some hundred messages. Once its `ticket` is withdrawn, the message is not sent, or
        not again; `settled` is called then as well.

        When another publish closed the channel before the confirm, this one is uncertain and is published again, one
        at a time, on a throw-away channel: then it is known which of them is the culprit. That may make a second copy
        with the same hop id (guarantee G2).

        Errors:
            UnroutableError, PublishRefusedError: no queue has it, or one has an earlier copy of it with the same hop
                id.
            PublishForbiddenError: the user has no write permission on the exchange.
            UnpublishableError: this message is what closes the channel, or it cannot be encoded.
            PublishUncertainError: the connection was lost before the confirm; a queue may have it. So it may when it
                cannot be published again because its exchange, or the permission, is missing by then.
            BrokerUnavailableError, or another error of the connection: nothing was sent.
        """
        channel = self._channel
        if channel is None or not self.is_open:
            self._in_background(partial(self._post_later, message, ticket), settled)
            return
        if self.alone and message.exchange in self.alone:
            self._in_background(partial(self._post_alone, message, None, ticket), settled)
            return

        def answered(error: AmqpflowError | None) -> None:
            if error is None:
                settled(None)
            elif isinstance(error, PublishUncertainError) and error.closed_by_publish is not None:
                self._in_background(partial(self._post_alone, message, error, ticket), settled, error)
            elif isinstance(error, BrokerUnavailableError) and not self._closed.is_set():
                # the channel ended before anything of it was sent, for no fault of its own
                self._in_background(partial(self._post_later, message, ticket), settled, error)
            else:
                self._refused = self._refused or isinstance(error, PublishRefusedError)
                settled(error)

        try:
            channel.post(message, answered, ticket)
        except ValueError as error:
            settled(UnpublishableError(f"it cannot be encoded: {error}"))

    async def room(self) -> None:
        """Wait while the socket is behind with what was posted; returns when the channel is closed as well."""
        if self._channel is not None and not self._channel.is_closed:
            with suppress(BrokerUnavailableError):
                await self._channel.room()

    def _in_background(
        self,
        work: Callable[[Settled], Coroutine[Any, Any, None]],
        settled: Settled,
        not_begun: AmqpflowError | None = None,
    ) -> None:
        """Run a task that calls `settled` once. It is called with `not_begun` when cancelled before it has begun."""
        is_settled = False

        def tell(error: AmqpflowError | None) -> None:
            nonlocal is_settled
            if not is_settled:
                is_settled = True
                settled(error)

        task = asyncio.create_task(work(tell))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                tell(not_begun or BrokerUnavailableError("it is closed"))
            elif (bug := task.exception()) is not None:
                tell(PublishUncertainError(f"publishing it failed: {bug!r}"))

        task.add_done_callback(ended)

    async def _post_later(self, message: Publish, ticket: Ticket | None, settled: Settled) -> None:
        try:
            await self._open()
        except AmqpflowError as error:
            settled(error)
        except Exception as bug:
            settled(BrokerUnavailableError(f"it cannot be sent: {bug!r}"))
        else:
            if _is_withdrawn(ticket):
                settled(withdrawn_error())
            else:
                self.post(message, settled, ticket)

    async def _post_alone(
        self, message: Publish, before: PublishUncertainError | None, ticket: Ticket | None, settled: Settled
    ) -> None:
        """Publish alone. `before`: how it ended when published with others; None if nothing was sent yet."""
        uncertain = before
        try:
            async with self._one_at_a_time:
                connection = await self._connected()
                if _is_withdrawn(ticket):
                    settled(before or withdrawn_error())
                    return
                uncertain = before or PublishUncertainError("it was closed before the confirm")
                await self._publish_alone(connection, message, ticket)
        except asyncio.CancelledError:
            settled(uncertain or BrokerUnavailableError("it is closed"))
            raise
        except (BrokerUnavailableError, BrokerError, PermissionDeniedError) as lost:
            settled(lost if before is None else _still_uncertain(before, lost))
        except (PublishForbiddenError, UnroutableError) as refused:
            # closed: by a missing exchange or permission. The first publish may have arrived before that was missing
            is_closed = refused.__cause__ is not None
            settled(_still_uncertain(before, refused) if before and before.may_be_there and is_closed else refused)
        except AmqpflowError as other:
            settled(other)
        else:
            settled(None)

    async def _publish_alone(self, connection: Connection, message: Publish, ticket: Ticket | None) -> None:
        try:
            try:
                await publish_alone(connection, message, ticket)
            except PublishForbiddenError:
                if not await connection.has_another_login():
                    raise
                self._leave(connection)
                await publish_alone(await self._connected(), message, ticket)
        except (PublishForbiddenError, UnroutableError) as error:
            if error.__cause__ is not None:  # it closed its channel
                self.alone.add(message.exchange)
            raise
        self.alone.discard(message.exchange)

    def _leave(self, connection: Connection) -> None:
        """Publish on another connection from now on; outstanding publishes are still confirmed on this one."""
        if self._connection is not connection:
            return
        channel, self._connection, self._channel, self._refused = self._channel, None, None, False
        self._blocked_changed(None)

        async def finish() -> None:
            try:
                if channel is not None:
                    await channel.idle(LAST_CONFIRMS)
            finally:
                await connection.close(ANOTHER_LOGIN)

        task = asyncio.create_task(finish(), name="amqpflow outbox leaves a connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def _worn_out(self) -> bool:
        # RabbitMQ 3.10 still refuses on this channel after the queue's limit was lifted
        return self._refused and self._channel is not None and self._channel.is_idle

    async def _open(self) -> Channel:
        if self._channel is not None and self._worn_out:
            channel, self._channel, self._refused = self._channel, None, False
            await channel.close()
        if self._channel is not None and self._channel.is_closed:
            await self._channel.closed.wait()  # its number may be used again once aiormq has answered the close
        if self._channel is None or self._channel.is_closed:
            connection = await self._connected()
            async with self._opening:
                if self._channel is None or self._channel.is_closed:
                    self._channel = await connection.open_channel()
        return self._channel

    async def _connected(self) -> Connection:
        """Connect once for all that wait, else each would wait for a time limit of its own."""
        if self._closed.is_set():
            raise BrokerUnavailableError("it is closed")
        if self._connection is not None and not self._connection.is_closed:
            return self._connection
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._reconnect(), name="amqpflow outbox connects")
            self._connecting.add_done_callback(self._connected_or_not)
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            if connecting.cancelled() and self._closed.is_set():
                raise BrokerUnavailableError("it was closed while it connected") from None
            raise
        except AmqpflowError as error:
            raise copy(error) from error  # each publish has an error of its own

    def _connected_or_not(self, connecting: asyncio.Task[Connection]) -> None:
        self._connecting = None
        if not connecting.cancelled():
            connecting.exception()

    async def _reconnect(self) -> Connection:
        connection = await self._connect()
        if self._closed.is_set():
            await connection.close()
            raise BrokerUnavailableError("it was closed while it connected")
        connection.on_blocked(self._blocked_changed)
        self._connection = connection
        return connection

    async def close(self, *, within: float = CLOSE_TIMEOUT) -> None:
        """Disconnect for good, within so many seconds; publishes without a confirm become uncertain."""
        self._closed.set()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._blocked_changed(None)
            await connection.close(within=within)
        if self._connecting is not None:
            self._tasks.add(self._connecting)  # type: ignore[arg-type]
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _is_withdrawn(ticket: Ticket | None) -> bool:
    return ticket is not None and ticket.withdrawn


def _still_uncertain(before: PublishUncertainError, error: AmqpflowError) -> PublishUncertainError:
    return PublishUncertainError(f"{before}; and it could not be published again: {error}", hint=error.hint)


async def publish_alone(connection: Connection, message: Publish, ticket: Ticket | None = None) -> None:
    """Publish on a throw-away channel, so that it is known whether this message is what closes it. Errors as
    `Outbox.post`; an UnroutableError has a cause when it is the exchange that is missing.
    """
    channel = await connection.open_channel()
    try:
        await channel.publish(message, ticket)
    except ValueError as error:  # on this connection a frame may hold less
        raise UnpublishableError(f"it cannot be encoded: {error}") from None
    except PublishUncertainError as error:
        blame = error.closed_by_publish
        if blame is None:
            raise
        if blame.startswith("NOT_FOUND"):
            raise UnroutableError(f"exchange {message.exchange!r} does not exist") from error
        if blame.startswith("ACCESS_REFUSED"):
            raise PublishForbiddenError(
                f"no permission to publish to exchange {message.exchange!r}",
                hint="`amqpflow permissions FILE` prints what each kind of user needs, and the lines that grant it",
            ) from error
        raise UnpublishableError(blame) from error
    finally:
        await channel.close()
