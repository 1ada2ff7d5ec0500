"""Publish in one event loop, over one connection, with a limit of messages without a confirm."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, wait
from contextlib import suppress
from copy import copy
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

from amqpflow.errors import (
    AmqpflowError,
    BrokerUnavailableError,
    PartlyDoneError,
    PublishRefusedError,
    PublishUncertainError,
    UnpublishableError,
    UnroutableError,
)
from amqpflow.model.message import Publish
from amqpflow.model.outgoing import OutgoingMessage, encode_outgoing
from amqpflow.rabbitmq.confirms import Ticket
from amqpflow.rabbitmq.connection import Connection

from .outbox import Outbox

CLOSE_TIMEOUT = 5.0  #: seconds for confirms that are on their way
MAX_OUTSTANDING = 1000  #: publishes without a confirm at one time
_CHUNK = 100  #: messages that are sent together
_LOOP_ENDED = "the event loop of the publisher has ended"
_LATE = "the handler ran into its timeout, and its message is retried"
_LOOK_AGAIN = 1.0  #: seconds after which a thread looks whether the event loop still runs


class LoopPublisher:
    """Publishes in one event loop; connects on first use, and after a loss. The docstrings of `Publisher` hold here."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self.loop = asyncio.get_running_loop()
        self.process = os.getpid()
        self.outbox = Outbox(self._connected)
        self.is_closed = False
        self._vhost = ""
        self._outstanding = 0
        self._all_settled: asyncio.Future[None] | None = None  # of the closes that wait for it
        self._closes_at = 0.0  # of the loop's clock: until then they wait
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._with_the_loop: AsyncGenerator[None, None] | None = None

    async def _connected(self) -> Connection:
        if self._with_the_loop is None:
            # asyncio.run ends the generators of its loop, so that no socket is left behind
            self._with_the_loop = self._until_the_loop_ends()
            await anext(self._with_the_loop)
        connection = await self._connect()
        self._vhost = connection.address.vhost
        return connection

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.outbox.close()

    async def publish(self, message: OutgoingMessage, message_id: str = "", ticket: Ticket | None = None) -> str:
        """Publish as `Publisher.publish`. The id is chosen here unless it is given.

        Cancelled, it withdraws what was not written yet, and counts what was until that is settled: `ticket` says
        which it is.
        """
        message_id = message_id or _id_of(message)
        ticket = ticket or Ticket()
        try:
            publish = _encoded(message, message_id)
            await self._admitted(MAX_OUTSTANDING)
            await self._confirmed(publish, ticket)
        except AmqpflowError as error:
            _with_id(self._located(error), message_id)
            raise
        return message_id

    async def _admitted(self, most: int, then: int | None = None) -> None:
        """Wait while `most` publishes are without a confirm (until there are fewer than `then`), or the broker takes
        none: it would not read them, and unsent messages can be withdrawn. Raises BrokerUnavailableError: it is closed.
        """
        while True:
            if self.is_closed:
                raise BrokerUnavailableError("the publisher is closed")
            if self._outstanding >= most:
                waiter = self.loop.create_future()
                self._waiting.append((most if then is None else then, waiter))  # behind all that wait already
                await waiter
            elif self.outbox.blocked is not None:
                await asyncio.wait([self.outbox.unblocked()])  # others wait for it, too: it is not to be cancelled
            else:
                return

    async def _confirmed(self, publish: Publish, ticket: Ticket) -> None:
        confirm: asyncio.Future[None] = self.loop.create_future()

        def settled(error: AmqpflowError | None) -> None:
            self._leave()
            if confirm.done():
                return  # it was cancelled
            if error is None:
                confirm.set_result(None)
            else:
                confirm.set_exception(error)

        self._outstanding += 1
        self.outbox.post(publish, settled, ticket)
        try:
            await confirm
        except asyncio.CancelledError:
            ticket.withdrawn = True
            raise

    def publish_and_wait(self, message: OutgoingMessage, late: Lateness | None = None) -> str:
        """Publish from a thread in which no event loop runs: return when the message is confirmed.

        Raises:
            TimeoutError: the handler runs into its timeout, as `late` says.
            BrokerUnavailableError: the event loop has ended, and nothing was sent. PublishUncertainError: it ended
                before the confirm. Else as `publish`.
        """
        message_id = _id_of(message)
        begun = False

        async def publish() -> str:
            nonlocal begun
            begun = True
            if late is None:
                return await self.publish(message, message_id)
            return await late.ending(lambda ticket: self.publish(message, message_id, ticket))

        work = publish()
        try:
            waiting = asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:
            work.close()
            raise _with_id(BrokerUnavailableError(_LOOP_ENDED), message_id) from None
        # a loop that does not run any more answers no call, not even by cancelling it
        while not waiting.done() and (self.loop.is_running() or not waiting.cancel()):
            wait([waiting], timeout=_LOOK_AGAIN)
        try:
            return waiting.result()
        except CancelledError:
            if not begun:
                work.close()
                raise _with_id(BrokerUnavailableError(_LOOP_ENDED), message_id) from None
            raise _with_id(PublishUncertainError(f"{_LOOP_ENDED} before the confirm"), message_id) from None

    async def publish_many(self, messages: Iterator[OutgoingMessage]) -> list[str | AmqpflowError]:
        """Publish as `Publisher.publish_many`."""
        ticket = Ticket()
        try:
            return await self._publish_many(messages, ticket)
        except asyncio.CancelledError:
            ticket.withdrawn = True
            raise

    async def _publish_many(self, messages: Iterator[OutgoingMessage], ticket: Ticket) -> list[str | AmqpflowError]:
        results: list[str | AmqpflowError] = []
        unsettled = _Unsettled()
        failure: Exception | None = None
        cannot_connect: AmqpflowError | None = None
        for at in count():
            try:
                message = next(messages)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            message_id = _id_of(message)
            results.append(message_id)
            try:
                publish = _encoded(message, message_id)
                await self._admitted(MAX_OUTSTANDING, MAX_OUTSTANDING - _CHUNK)
            except AmqpflowError as error:
                results[at] = _with_id(error, message_id)
                continue
            if cannot_connect is None and not self.outbox.is_open:
                try:
                    await self.outbox.open()
                except AmqpflowError as error:
                    cannot_connect = error
            if cannot_connect is not None:
                results[at] = _with_id(copy(cannot_connect), message_id)
                continue
            if at % _CHUNK == 0:
                await self.outbox.room()
            self._outstanding += 1
            unsettled.count += 1
            self.outbox.post(publish, partial(self._settled, results, at, unsettled), ticket)
        await unsettled.none()
        if failure is not None:
            raise PartlyDoneError(
                f"the messages raised {type(failure).__name__} after {len(results)} of them: {failure}",
                hint="the results of those before it are the error's `report`",
                report=results,
            ) from failure
        return results

    def _settled(
        self, results: list[str | AmqpflowError], at: int, unsettled: _Unsettled, error: AmqpflowError | None
    ) -> None:
        if error is not None:
            results[at] = _with_id(self._located(error), str(results[at]))
        self._leave()
        unsettled.one_less()

    def _located(self, error: AmqpflowError) -> AmqpflowError:
        """Name the virtual host: a missing queue or exchange often exists in another one."""
        if isinstance(error, UnroutableError | PublishRefusedError):
            error.args = (f"{error}, in virtual host {self._vhost}",)
        return error

    def _leave(self) -> None:
        self._outstanding -= 1
        if not self._outstanding and self._all_settled is not None and not self._all_settled.done():
            self._all_settled.set_result(None)
        while self._waiting and self._waiting[0][0] > self._outstanding:
            _, waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def close(self, timeout: float) -> None:
        """Close as `Publisher.close`, in this event loop."""
        self.is_closed = True
        self._closes_at = max(self._closes_at, self.loop.time() + timeout)
        waiting = list(self._waiting)
        self._waiting.clear()
        for _, waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)  # to find it closed
        while self._outstanding and (left := self._closes_at - self.loop.time()) > 0:  # another close may allow more
            if self._all_settled is None or self._all_settled.done():
                self._all_settled = self.loop.create_future()
            await asyncio.wait([self._all_settled], timeout=left)
        await self.outbox.close()
        if self._with_the_loop is not None:
            with suppress(RuntimeError):  # another task ends it
                await self._with_the_loop.aclose()


class Lateness:
    """Whether a handler ran into its timeout, and what its threads are publishing. Used in the publisher's loop."""

    __slots__ = ("_tasks", "is_late")

    def __init__(self) -> None:
        self.is_late = False
        self._tasks: frozenset[asyncio.Task[Any]] = frozenset()  # nearly every message has none

    def require_in_time(self) -> None:
        if self.is_late:
            raise TimeoutError(f"{_LATE}: nothing was published")

    async def ending(self, publish: Callable[[Ticket], Awaitable[str]]) -> str:
        """Publish, in a task that waits for nothing else. Raises TimeoutError: the handler's time is over first."""
        self.require_in_time()
        ticket, task = Ticket(), asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs is in one
        self._tasks |= {task}
        try:
            return await publish(ticket)
        except asyncio.CancelledError:
            if not self.is_late:
                raise
            task.uncancel()
            what = "what it was publishing may be in a queue" if ticket.written else "nothing was published"
            raise TimeoutError(f"{_LATE}: {what}") from None
        finally:
            self._tasks -= {task}

    def end(self) -> None:
        """End what waits for a confirm, and let nothing begin: the handler ran into its timeout."""
        self.is_late = True
        for task in self._tasks:
            task.cancel()


class _Unsettled:
    """How many messages of one call have no result yet."""

    __slots__ = ("_waiter", "count")

    def __init__(self) -> None:
        self.count = 0
        self._waiter: asyncio.Future[None] | None = None

    def one_less(self) -> None:
        self.count -= 1
        if self.count == 0 and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def none(self) -> None:
        if self.count:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


def _encoded(message: OutgoingMessage, message_id: str) -> Publish:
    """Encode. Raises UnpublishableError whatever is wrong: the program's own mappings may raise anything."""
    try:
        return encode_outgoing(message, message_id)
    except ValueError as error:
        raise UnpublishableError(f"the message cannot be sent: {error}") from None
    except Exception as error:
        raise UnpublishableError(f"the message cannot be encoded: {error!r}") from error


def _id_of(message: object) -> str:
    """Return the message id that it was given, if that is text, else a new one."""
    given: Any = getattr(message, "message_id", None)
    return given if isinstance(given, str) and given else str(uuid4())


def _with_id(error: AmqpflowError, message_id: str) -> AmqpflowError:
    error.message_id = message_id
    return error
