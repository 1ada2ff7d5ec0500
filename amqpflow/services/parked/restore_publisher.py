"""Publish the messages of an export that are missing from their queues, and record each before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from amqpflow.errors import AmqpflowError, BrokerUnavailableError, PublishError, PublishUncertainError
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Publish, identity_of
from amqpflow.parking.digest_multiset import DigestMultiset
from amqpflow.parking.export import ExportedMessage
from amqpflow.parking.identity import content_digest
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection
from amqpflow.services.reading.options import ReadOptions

from .restore_check import ACTING
from .restore_record_file import RestoreRecord
from .restore_report import NAMED_AT_MOST, NotRestored, RestoreOptions, RestoreReport

CONFIRM_TIMEOUT = 30.0  #: seconds without a confirm after which outstanding messages are in doubt
_LAST_WORDS = 1.0  #: seconds for a broker that does not confirm to answer a close
_LOOK = 1.0  #: seconds between looks whether the broker blocks publishes
WINDOW = 500  #: messages outstanding, and in doubt when the process is killed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Missing:
    message: ExportedMessage
    queue: str
    publish: Publish
    is_changed: bool  #: `strip` leaves something out


@dataclass
class RestorePublisher:
    """One restore, from its first publish to its last confirm.

    A message that is larger than any that was confirmed goes alone: the broker may close the channel over it, after
    which nothing would be known of those that are on their way. So does the first.
    """

    connection: Connection
    record: RestoreRecord
    still: dict[str, DigestMultiset]
    report: RestoreReport
    reading: ReadOptions
    stop: asyncio.Event
    options: RestoreOptions
    on_step: Callable[[str], None]

    def __post_init__(self) -> None:
        self._channel: Channel | None = None
        self._outstanding = 0
        self._largest = -1  # bytes of a message that was confirmed
        self._some_settled = asyncio.Event()
        self._given_up = False  # outstanding messages are in doubt

    async def publish_all(self, messages: Iterator[ExportedMessage]) -> None:
        """Publish the missing messages, and return when RabbitMQ has answered each."""
        missing = self._missing(messages)
        while some := list(islice(missing, WINDOW // 2)):
            for each in some:
                self.record.publishing(each.queue, each.message.check)
            self.on_step("record")
            self.record.write()
            self.on_step("recorded")
            for at, each in enumerate(some):
                if self._is_over:
                    self._give_up(some[at:])
                    break
                await self._publish(each)
            if self._is_over:
                break
            await self._settle_down_to(WINDOW // 2)
            if self.reading.on_progress is not None:
                self.reading.on_progress(some[-1].queue, self._done, self.report.messages)
        await self._settle_down_to(0)
        self.on_step("record")
        self.report.interrupted = self.stop.is_set() and self._done < self.report.messages

    async def close(self) -> None:
        """Close the channel, or the connection when outstanding messages were given up: its broker may not read."""
        if self._given_up:
            await self.connection.close("no confirm came", within=_LAST_WORDS)
        if self._channel is not None:
            await self._channel.close()

    @property
    def _is_over(self) -> bool:
        return self.report.stopped is not None or self.stop.is_set()

    async def _publish(self, each: _Missing) -> None:
        size = len(each.publish.header) + len(each.publish.body)
        goes_alone = size > self._largest
        if goes_alone:
            await self._settle_down_to(0)
            if self._is_over:
                self._give_up([each])
                return
        self.on_step("publish")
        try:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self.connection.open_channel()
            self._channel.post(each.publish, partial(self._settled, each, goes_alone))
        except (ValueError, TypeError) as error:
            self._leave(each, f"it cannot be published: {error}")
            return
        except BrokerUnavailableError:
            self._give_up([each])
            raise
        self._outstanding += 1
        if goes_alone:
            await self._settle_down_to(0)
        else:
            await self._or_over(self._channel.room())

    @property
    def _done(self) -> int:
        return self.report.before + self.report.still_parked + self.report.restored

    def _missing(self, messages: Iterator[ExportedMessage]) -> Iterator[_Missing]:
        for message in messages:
            if self._is_over:
                return
            queue = self.options.queue_of(message)
            try:
                publish, stripped = _publish(message, queue, self.options.strip)
            except (ValueError, TypeError) as error:
                self._name(message, f"it cannot be published: {error}")
                continue
            if not self._is_there(message, queue, stripped):
                yield _Missing(message=message, queue=queue, publish=publish, is_changed=stripped is not None)

    def _give_up(self, unpublished: Iterable[_Missing]) -> None:
        for each in unpublished:
            self.record.unpublished(each.queue, each.message.check)

    def _is_there(self, message: ExportedMessage, queue: str, stripped: ContentHeader | None) -> bool:
        """Tell whether the message is in its queue, or was there after an earlier restore.

        A parked message counts as one that was restored before, as long as there are such: of equal messages as many
        are restored as are missing, whichever of them are the parked ones. Otherwise it counts as a message that may
        never have left its queue, or that a restore may have published. It is another message if this one was
        certainly taken out.
        """
        recorded, still = self.record.before.take(queue, message.check), self.still.get(queue)
        digests = [content_digest(each, message.body) for each in (message.header, stripped) if each is not None]
        if not recorded and not self._may_be_parked(message, queue):
            self.report.equal += still is not None and any(each in still for each in digests)
            return False
        parked = still is not None and any(still.take(each) for each in digests)
        self.report.before += recorded
        self.report.still_parked += parked and not recorded
        return recorded or parked

    def _may_be_parked(self, message: ExportedMessage, queue: str) -> bool:
        if self.options.again or message.number > self.report.taken_out:
            return True
        return self.record.before.may_be_there(queue, message.check)

    def _settled(self, sent: _Missing, went_alone: bool, error: AmqpflowError | None) -> None:
        self._outstanding -= 1
        self._some_settled.set()
        if error is None:
            self._largest = max(self._largest, len(sent.publish.header) + len(sent.publish.body))
            self.record.confirmed(sent.queue, sent.message.check)
            self.report.restored += 1
            self.report.changed += sent.is_changed
            self.report.queues[sent.queue] = self.report.queues.get(sent.queue, 0) + 1
            return
        blame = error.closed_by_publish if isinstance(error, PublishUncertainError) else None
        if isinstance(error, PublishError | BrokerUnavailableError) or (blame is not None and went_alone):
            self._leave(sent, blame or str(error))
        else:
            self._name(sent.message, str(error), in_doubt=True)
        if (
            isinstance(error, PublishUncertainError)
            and not self._given_up
            and (blame is None or blame.startswith("ACCESS_REFUSED"))
        ):
            # the connection is lost, or there is no permission on the default exchange, through which all go
            self.report.stopped = self.report.stopped or blame or str(error)

    def _leave(self, sent: _Missing, why: str) -> None:
        """Record that a message is certainly not in its queue."""
        self.record.unpublished(sent.queue, sent.message.check)
        self._name(sent.message, why)

    def _name(self, message: ExportedMessage, why: str, *, in_doubt: bool = False) -> None:
        report = self.report
        report.failed += not in_doubt
        report.in_doubt += in_doubt
        if len(report.left_behind) < NAMED_AT_MOST:
            message_id = message.header.properties.message_id
            report.left_behind.append(
                NotRestored(number=message.number, message_id=message_id, why=why, in_doubt=in_doubt)
            )

    async def _settle_down_to(self, most: int) -> None:
        while self._outstanding > most and not self._given_up:
            self._some_settled.clear()
            await self._or_over(self._some_settled.wait())

    async def _or_over(self, waiting: Coroutine[Any, Any, Any]) -> None:
        """Await the broker's next confirm or read. Give up when neither comes for `CONFIRM_TIMEOUT`, and at once when
        it blocks publishes and stop is set: outstanding messages are in doubt then.
        """
        task = asyncio.ensure_future(waiting)
        stop = asyncio.create_task(self.stop.wait())
        clock = asyncio.get_running_loop().time
        until = clock() + CONFIRM_TIMEOUT
        try:
            while not task.done():
                blocked = self.connection.blocked
                left = until - clock()
                if left <= 0 or (blocked is not None and stop.done()):
                    self._given_up = True
                    if not stop.done():
                        why = f": the broker blocks publishes: {blocked}" if blocked else ""
                        text = f"no confirm within {CONFIRM_TIMEOUT:.0f} s{why}"
                        self.report.stopped = self.report.stopped or text
                    return
                either = [task] if stop.done() else [task, stop]
                await asyncio.wait(either, timeout=min(left, _LOOK), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (task, stop):
                each.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)
        task.result()


def _publish(message: ExportedMessage, queue: str, strip: bool) -> tuple[Publish, ContentHeader | None]:
    """Return the publish, and its content header when that is not the one that the message had."""
    header = message.header
    routed = header.properties.user_id or any(name in header.headers for name in ACTING)
    stripped = ContentHeader(header.without(ACTING)) if strip and routed else None
    return (
        Publish(
            exchange="",
            routing_key=queue,
            header=(stripped or header).payload,
            body=message.body,
            identity=identity_of(header.properties),
        ),
        stripped.as_readable() if stripped else None,
    )
