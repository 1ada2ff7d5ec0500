"""Put exported messages back into parking queues: the same bytes, each once.

A message is put back when it is missing: what is still parked in its queue is looked at first, and what was put back
before is recorded (`restore_record`). Both are multisets of all that a message holds, of one broker, virtual host and
queue. The reading lock is held from the look to the last confirm, so that of two restores one sees what the other did.

A parked message is equal to one of the file: is it that one? After a plain export it is. After a discard it is another
one, where the file says that RabbitMQ has taken the ack (`Discarded`); for the others it may be that one.

What if the process dies here? The record names a message before it is published. A confirm that was not recorded yet is
seen by the next run's look, unless the message left the queue meanwhile: then it is published again, at most WINDOW of
them, with the ids of the first.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import IO, Any

from amqpflow.errors import AmqpflowError, BrokerUnavailableError, PublishError, PublishUncertainError, RefusedError
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.headers import ROUTING, SCHEDULING
from amqpflow.model.message import Publish, identity_of
from amqpflow.parking.digest_multiset import DigestMultiset
from amqpflow.parking.export import Checks, Discarded, ExportedMessage, ExportEnd, ExportHead
from amqpflow.parking.identity import content_digest
from amqpflow.parking.restore_record import RestorePlace
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection
from amqpflow.rabbitmq.observe import Broker
from amqpflow.services.reading.lock import reading_alone
from amqpflow.services.reading.options import ReadOptions

from .export_file import LineCutOff, read_export
from .restore_record import RestoreRecord, open_record
from .restore_targets import require_queues, still_parked

CONFIRM_TIMEOUT = 30.0  #: seconds without a confirm after which what is on its way is in doubt
_LAST_WORDS = 1.0  #: seconds for a broker that does not confirm to answer a close
_LOOK = 1.0  #: seconds between looks whether the broker takes publishes
WINDOW = 500  #: messages in flight, and in doubt when the process is killed
_PROBLEMS_AT_MOST = 20
_ACTING = sorted(ROUTING | SCHEDULING)  #: headers by which RabbitMQ would do more than put a message into its queue


_NAMED_AT_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRestored:
    """A message of the export that could not be put back."""

    number: int  #: of the message in the export
    message_id: str | None
    why: str
    in_doubt: bool  #: it may be in its queue


@dataclass(slots=True, kw_only=True)
class RestoreReport:
    """What a restore has done."""

    file: str
    messages: int = 0  #: in the file
    restored: int = 0  #: confirmed now
    before: int = 0  #: confirmed by earlier runs, in this place
    still_parked: int = 0  #: of the others, those that are in their queue anyway
    taken_out: int = 0  #: the first so many of the file were taken out of their queues for certain, by a discard
    equal: int = 0  #: of those, restored now although an equal message is parked, which is another one
    changed: int = 0  #: of those restored now, without what `strip` leaves out
    failed: int = 0  #: certainly not restored
    in_doubt: int = 0  #: perhaps in their queue: the next restore looks
    left_behind: list[NotRestored] = field(default_factory=list)  #: the first 100 of both
    finished: bool = True  #: the export has its end: whoever wrote it was not killed over it, and it was copied whole
    cut_off: int | None = None  #: number of the last line when it has no end; it was not restored
    interrupted: bool = False
    stopped: str | None = None  #: why it did not go on
    queues: dict[str, int] = field(default_factory=dict)  #: parking queue -> messages restored now
    notes: list[str] = field(default_factory=list)  #: what a person should know of it

    @property
    def complete(self) -> bool:
        """The export is whole, and each of its messages is restored or still parked."""
        done = self.restored + self.before + self.still_parked
        return self.finished and self.stopped is None and not self.interrupted and done == self.messages


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """How to restore."""

    to: str | None = None  #: put all messages into this queue
    strip: bool = False  #: leave out what would act on RabbitMQ: user_id, CC, BCC, x-opt-delivery-time and -delay
    again: bool = False  #: forget what was restored before
    duplicates: bool = False  #: put back also what is still parked; the queues are not looked at

    def queue_of(self, message: ExportedMessage) -> str:
        """Where the message goes."""
        return self.to if self.to is not None else message.parking_queue


async def restore_parked(
    broker: Broker,
    source: str | IO[bytes],
    reading: ReadOptions,
    options: RestoreOptions = RestoreOptions(),
    *,
    on_step: Callable[[str], None] = lambda _: None,
) -> RestoreReport:
    """
    Publish the messages of an export that are missing from their parking queues, through the default exchange.

    The whole file is checked first. Exchange and routing key of the delivery are not what they were; what our own
    record says of the first publish is.

    Args:
        broker: where.
        source: the export, a path, or a binary file to read it from.
        reading: how the queues are looked at; what is outstanding when its stop is set is awaited.
        options: how.
        on_step: for tests.

    Raises:
        RefusedError: the file is damaged or holds what cannot be published as it is; another restore of it is running;
            or it cannot be found out what is still parked. NotAppliedError: a queue is missing. Nothing was done.
        StoppedError: stop was set while another command was reading a queue.
        AmqpflowError: the file cannot be read, or the record of what was restored cannot be written.
    """
    if isinstance(source, str):
        return await _restore(broker, source, source, reading, options, on_step)
    try:
        temporary = tempfile.TemporaryFile()  # noqa: SIM115 - it is read twice
    except OSError as error:
        raise AmqpflowError(
            f"cannot make a temporary file: {error.strerror}", hint="TMPDIR names a directory for them"
        ) from error
    with temporary as spooled:
        shutil.copyfileobj(source, spooled)
        return await _restore(broker, spooled, None, reading, options, on_step)


async def _restore(
    broker: Broker,
    source: str | IO[bytes],
    path: str | None,
    reading: ReadOptions,
    options: RestoreOptions,
    on_step: Callable[[str], None],
) -> RestoreReport:
    head, queues, report = _checked(source, broker.address.user, options)
    report.file = path or "-"
    place = RestorePlace(
        cluster=broker.connection.cluster_name,
        addresses=tuple(f"{node.host}:{node.port}" for node in broker.address.nodes),
        vhost=broker.address.vhost,
    )
    with open_record(path, head.id, place, again=options.again) as record:
        async with AsyncExitStack() as stack:
            still: dict[str, DigestMultiset] = {}
            await require_queues(broker, queues)
            for queue in sorted(queues):
                waits = partial(reading.on_wait, queue) if reading.on_wait is not None else None
                lock = reading_alone(broker.connection, queue, on_wait=waits, stop=reading.stop)
                if not await stack.enter_async_context(lock):
                    report.notes.append(
                        f"no permission to keep others off {queue}: two restores at once may put messages back twice"
                    )
                if not options.duplicates:
                    still[queue], notes = await still_parked(broker, queue, reading)
                    report.notes += [note for note in notes if note not in report.notes]
            on_step("looked")
            record.write()
            run = _Run(broker.connection, record, still, report, reading, options, on_step)
            try:
                await run.publish_all(_messages(source))
            except BrokerUnavailableError as error:
                report.stopped = report.stopped or str(error)
            finally:
                await run.close()
                record.write()
    report.notes += _doubts(head, report, options)
    return report


def _doubts(head: ExportHead, report: RestoreReport, options: RestoreOptions) -> Iterator[str]:
    """Say for which messages a parked one was, or was not, taken."""
    if report.equal:
        yield (
            f"{report.equal} were restored although an equal message is parked: the discard took them out, so that one "
            "is another. Was it restored from a copy of the file, or without its record? --again takes it for the same"
        )
    if not report.still_parked or options.again or head.discard is False:
        return
    why = (
        "the file does not say whether its messages were taken out of their queues (version 1)"
        if head.discard is None
        else "the discard, or an earlier restore, was killed, or the file was edited"
    )
    yield (
        f"{report.still_parked} are in doubt: {why}. An equal message is parked and was taken for each; if those are "
        "other messages, --duplicates restores these too"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Missing:
    """A message that is to be published."""

    message: ExportedMessage
    queue: str
    publish: Publish
    is_changed: bool  #: `strip` leaves something out


class _Run:
    """
    One restore, from its first publish to its last confirm.

    A message that is larger than any that was confirmed goes alone: the broker may close the channel over it, after
    which nothing would be known of those that are on their way. So does the first.
    """

    def __init__(
        self,
        connection: Connection,
        record: RestoreRecord,
        still: dict[str, DigestMultiset],
        report: RestoreReport,
        reading: ReadOptions,
        options: RestoreOptions,
        on_step: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._channel: Channel | None = None
        self._record = record
        self._still = still
        self._report = report
        self._reading = reading
        self._options = options
        self._on_step = on_step
        self._outstanding = 0
        self._largest = -1  # bytes of a message that was confirmed
        self._some_settled = asyncio.Event()
        self._given_up = False  # what is on its way by now is in doubt

    async def publish_all(self, messages: Iterator[ExportedMessage]) -> None:
        """Publish what is missing, and return when RabbitMQ has said of each what became of it."""
        missing = self._missing(messages)
        while some := list(islice(missing, WINDOW // 2)):
            for each in some:
                self._record.publishing(each.queue, each.message.check)
            self._on_step("record")
            self._record.write()
            self._on_step("recorded")
            for at, each in enumerate(some):
                if self._is_over:
                    self._give_up(some[at:])
                    break
                await self._publish(each)
            if self._is_over:
                break
            await self._settle_down_to(WINDOW // 2)
            if self._reading.on_progress is not None:
                self._reading.on_progress(some[-1].queue, self._done, self._report.messages)
        await self._settle_down_to(0)
        self._on_step("record")
        self._report.interrupted = self._reading.stop.is_set() and self._done < self._report.messages

    async def close(self) -> None:
        """Close the channel; when what is on its way was given up, the connection, whose broker may not read."""
        if self._given_up:
            await self._connection.close("no confirm came", within=_LAST_WORDS)
        if self._channel is not None:
            await self._channel.close()

    @property
    def _is_over(self) -> bool:
        return self._report.stopped is not None or self._reading.stop.is_set()

    async def _publish(self, each: _Missing) -> None:
        size = len(each.publish.header) + len(each.publish.body)
        goes_alone = size > self._largest
        if goes_alone:
            await self._settle_down_to(0)
            if self._is_over:
                self._give_up([each])
                return
        self._on_step("publish")
        try:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._connection.open_channel()
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
        return self._report.before + self._report.still_parked + self._report.restored

    def _missing(self, messages: Iterator[ExportedMessage]) -> Iterator[_Missing]:
        for message in messages:
            if self._is_over:
                return
            queue = self._options.queue_of(message)
            try:
                publish, stripped = _publish(message, queue, self._options.strip)
            except (ValueError, TypeError) as error:
                self._name(message, f"it cannot be published: {error}")
                continue
            if not self._is_there(message, queue, stripped):
                yield _Missing(message=message, queue=queue, publish=publish, is_changed=stripped is not None)

    def _give_up(self, unpublished: Iterable[_Missing]) -> None:
        for each in unpublished:
            self._record.unpublished(each.queue, each.message.check)

    def _is_there(self, message: ExportedMessage, queue: str, stripped: ContentHeader | None) -> bool:
        """
        Is it in its queue, or was it there after an earlier restore?

        What is parked is taken for what was restored before, as far as that goes: of equal messages so many are put
        back that none is missing, whichever of them are the parked ones. Otherwise it is taken for a message that may
        never have left its queue, or that a restore may have put back. It is another one, if this one was certainly
        taken out.
        """
        recorded, still = self._record.before.take(queue, message.check), self._still.get(queue)
        digests = [content_digest(each, message.body) for each in (message.header, stripped) if each is not None]
        if not recorded and not self._may_be_parked(message, queue):
            self._report.equal += still is not None and any(each in still for each in digests)
            return False
        parked = still is not None and any(still.take(each) for each in digests)
        self._report.before += recorded
        self._report.still_parked += parked and not recorded
        return recorded or parked

    def _may_be_parked(self, message: ExportedMessage, queue: str) -> bool:
        if self._options.again or message.number > self._report.taken_out:
            return True
        return self._record.before.may_be_there(queue, message.check)

    def _settled(self, sent: _Missing, went_alone: bool, error: AmqpflowError | None) -> None:
        self._outstanding -= 1
        self._some_settled.set()
        if error is None:
            self._largest = max(self._largest, len(sent.publish.header) + len(sent.publish.body))
            self._record.confirmed(sent.queue, sent.message.check)
            self._report.restored += 1
            self._report.changed += sent.is_changed
            self._report.queues[sent.queue] = self._report.queues.get(sent.queue, 0) + 1
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
            self._report.stopped = self._report.stopped or blame or str(error)

    def _leave(self, sent: _Missing, why: str) -> None:
        """It is certainly not in its queue."""
        self._record.unpublished(sent.queue, sent.message.check)
        self._name(sent.message, why)

    def _name(self, message: ExportedMessage, why: str, *, in_doubt: bool = False) -> None:
        report = self._report
        report.failed += not in_doubt
        report.in_doubt += in_doubt
        if len(report.left_behind) < _NAMED_AT_MOST:
            message_id = message.header.properties.message_id
            report.left_behind.append(
                NotRestored(number=message.number, message_id=message_id, why=why, in_doubt=in_doubt)
            )

    async def _settle_down_to(self, most: int) -> None:
        while self._outstanding > most and not self._given_up:
            self._some_settled.clear()
            await self._or_over(self._some_settled.wait())

    async def _or_over(self, waiting: Coroutine[Any, Any, Any]) -> None:
        """
        Await what the broker's next confirm, or read, ends. Give up when neither comes for `CONFIRM_TIMEOUT`, and at
        once when it takes no publishes and stop is set: what is on its way is in doubt then.
        """
        task = asyncio.ensure_future(waiting)
        stop = asyncio.create_task(self._reading.stop.wait())
        clock = asyncio.get_running_loop().time
        until = clock() + CONFIRM_TIMEOUT
        try:
            while not task.done():
                blocked = self._connection.blocked
                left = until - clock()
                if left <= 0 or (blocked is not None and stop.done()):
                    self._given_up = True
                    if not stop.done():
                        why = f": the broker takes no publishes: {blocked}" if blocked else ""
                        text = f"no confirm within {CONFIRM_TIMEOUT:.0f} s{why}"
                        self._report.stopped = self._report.stopped or text
                    return
                either = [task] if stop.done() else [task, stop]
                await asyncio.wait(either, timeout=min(left, _LOOK), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (task, stop):
                each.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)
        task.result()


def _publish(message: ExportedMessage, queue: str, strip: bool) -> tuple[Publish, ContentHeader | None]:
    """What is published, and its content header when it is not the one that the message had."""
    header = message.header
    routed = header.properties.user_id or any(name in header.headers for name in _ACTING)
    stripped = ContentHeader(header.without(_ACTING)) if strip and routed else None
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


def _checked(source: str | IO[bytes], user: str, options: RestoreOptions) -> tuple[ExportHead, set[str], RestoreReport]:
    """Read the file to its end before anything is done with it."""
    head: ExportHead | None = None
    queues: set[str] = set()
    report = RestoreReport(file="", finished=False)
    problems: list[str] = []
    checks = Checks()
    for number, line in read_export(source):
        problem = line if isinstance(line, str) else None
        if isinstance(line, LineCutOff):
            report.cut_off = number
            continue
        if report.finished:
            problem = problem or "it stands behind the end of the export"
        report.messages += isinstance(line, str) and head is not None  # it will have been one
        if isinstance(line, ExportHead):
            problem = problem or ("a second head" if head else None)
            head = head or line
        elif isinstance(line, Discarded):
            if (line.count, line.check) == (report.messages, str(checks)):  # else the file was edited
                report.taken_out = line.count
        elif isinstance(line, ExportEnd):
            report.finished = line.count == report.messages
            if not report.finished:
                problem = problem or f"{line.count} messages were written, and {report.messages} are here"
        elif isinstance(line, ExportedMessage):
            report.messages += 1
            checks.add(line.check)
            queues.add(options.queue_of(line))
            if line.number != report.messages:
                problem = problem or f"message {line.number} stands where message {report.messages} belongs"
            elif not options.strip:
                problem = problem or _unfit(line, user)
        if problem:
            problems.append(f"line {number}: {problem}")
        if head is None or len(problems) == _PROBLEMS_AT_MOST:
            break
    if head is None and not problems:
        problems.append("line 1: it has no end" if report.cut_off else "it is empty")
    if problems or head is None:
        raise RefusedError(
            f"{source if isinstance(source, str) else 'standard input'} cannot be restored; nothing was done",
            problems=problems,
            hint="" if not any("--strip" in each for each in problems) else "--strip restores them without",
        )
    return head, queues, report


def _unfit(message: ExportedMessage, user: str) -> str | None:
    properties = message.header.properties
    if properties.user_id and properties.user_id != user:
        return (
            f"its user_id is {properties.user_id!r}, with which {user!r} may not publish "
            "(it is restored without with --strip)"
        )
    for name in _ACTING:
        if name in message.header.headers:
            does = "route copies" if name in ROUTING else "hold it back where queues support delays"
            return f"it has a {name} header, by which RabbitMQ would {does} (--strip restores it without)"
    return None


def _messages(source: str | IO[bytes]) -> Iterator[ExportedMessage]:
    for _, line in read_export(source):
        if isinstance(line, ExportedMessage):
            yield line
