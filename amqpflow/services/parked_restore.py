"""Put exported messages back into parking queues: the same bytes, each once.

What was confirmed is written to `FILE.restored`, so that a restore that was killed goes on behind it. A message whose
confirm was not written down yet is published again: at most a window of second copies, with the ids of the first.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from amqpflow.errors import AmqpflowError, BrokerError, BrokerUnavailable, NotApplied, Refused
from amqpflow.model.message import Publish, identity_of
from amqpflow.parking.export import ExportedMessage, ExportEnd, ExportHead
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.observe import Broker

from .export_file import read_export
from .parked_scan import Watch

WINDOW = 500  #: messages in flight, and in doubt when the process is killed
_PROBLEMS_AT_MOST = 20
_FORMAT = "amqpflow.restore"
_ROUTED = ("CC", "BCC")
_NOT_FOUND = 404


@dataclass(slots=True, kw_only=True)
class RestoreReport:
    """What a restore has done."""

    file: str
    messages: int = 0  #: in the file
    restored: int = 0  #: confirmed now
    before: int = 0  #: confirmed by earlier runs
    changed: int = 0  #: of those restored now, without their user_id, CC or BCC
    finished: bool = True  #: the export has its end: whoever wrote it was not killed over it
    interrupted: bool = False
    stopped: str | None = None  #: why it did not go on
    queues: dict[str, int] = field(default_factory=dict)  #: parking queue -> messages restored now

    @property
    def complete(self) -> bool:
        return self.stopped is None and not self.interrupted and self.restored + self.before == self.messages


async def restore_parked(
    broker: Broker,
    path: str,
    watch: Watch,
    *,
    to: str | None = None,
    strip: bool = False,
    again: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> RestoreReport:
    """
    Publish the messages of an export to the parking queues they were in, through the default exchange.

    The whole file is checked first. Exchange and routing key of the delivery are not what they were; what our own
    record says of the first publish is.

    Args:
        broker: where.
        path: the export.
        watch: who looks on; what is in flight when it says stop is awaited.
        to: put all of them into this queue.
        strip: leave out user_id, CC and BCC where a message cannot be published with them.
        again: forget what was restored before.
        on_step: for tests.

    Raises:
        Refused: the file is damaged or holds what cannot be published as it is; or another restore of it is running.
            NotApplied: a queue is missing. Nothing was done.
        AmqpflowError: the file cannot be read, or the record of what was restored cannot be written.
    """
    head, queues, report = _checked(path, broker.address.user, strip)
    targets = {to} if to is not None else queues
    await _require(broker, targets)
    with _Journal.open(path, head.id, to or "", again) as journal:
        report.before = len(journal.done)
        channel = await broker.connection.open_channel()
        try:
            await _publish_all(channel, _messages(path), journal, report, watch, to, strip, on_step)
        except BrokerUnavailable as error:
            report.stopped = str(error)
        finally:
            await channel.close()
            journal.write()
    return report


async def _publish_all(
    channel: Channel,
    messages: Iterator[ExportedMessage],
    journal: _Journal,
    report: RestoreReport,
    watch: Watch,
    to: str | None,
    strip: bool,
    on_step: Callable[[str], None],
) -> None:
    failed: list[AmqpflowError] = []
    some_settled = asyncio.Event()

    def settled(message: ExportedMessage, queue: str, error: AmqpflowError | None) -> None:
        some_settled.set()
        if error is not None:
            failed.append(error)
            return
        journal.confirmed(message.number)
        report.restored += 1
        report.queues[queue] = report.queues.get(queue, 0) + 1

    async def settle_down_to(most: int) -> None:
        while channel.outstanding > most and not channel.is_closed:
            some_settled.clear()
            await some_settled.wait()

    for message in messages:
        if message.number in journal.done:
            continue
        if failed or watch.stop.is_set():
            break
        queue = to or message.parking_queue
        on_step("publish")
        try:
            publish, changed = _publish(message, queue, strip)
            channel.post(publish, lambda error, message=message, queue=queue: settled(message, queue, error))  # type: ignore[misc]
        except (ValueError, TypeError) as error:
            failed.append(AmqpflowError(f"message {message.number} cannot be published: {error}"))
            break
        report.changed += changed
        if channel.outstanding >= WINDOW:
            await channel.room()
            await settle_down_to(WINDOW // 2)
            on_step("record")
            journal.write()
            on_step("recorded")
            watch.progress(queue, report.before + report.restored, report.messages)
    await settle_down_to(0)
    on_step("record")
    report.interrupted = watch.stop.is_set() and report.before + report.restored < report.messages
    if failed:
        report.stopped = str(failed[0])


def _publish(message: ExportedMessage, queue: str, strip: bool) -> tuple[Publish, bool]:
    header = message.header
    routed = header.properties.user_id or any(name in header.headers for name in _ROUTED)
    payload = header.without(_ROUTED) if strip and routed else header.payload
    identity = identity_of(header.properties)
    publish = Publish(exchange="", routing_key=queue, header=payload, body=message.body, identity=identity)
    return publish, payload is not header.payload


def _checked(path: str, user: str, strip: bool) -> tuple[ExportHead, set[str], RestoreReport]:
    """Read the file to its end before anything is done with it."""
    head: ExportHead | None = None
    queues: set[str] = set()
    report = RestoreReport(file=path, finished=False)
    problems: list[str] = []
    for number, line in read_export(path):
        problem = line if isinstance(line, str) else None
        report.messages += problem is not None and head is not None  # it will have been one
        if isinstance(line, ExportHead):
            problem = "a second head" if head else None
            head = head or line
        elif isinstance(line, ExportEnd):
            report.finished = line.count == report.messages
            problem = None if report.finished else f"{line.count} messages were written, and {report.messages} are here"
        elif isinstance(line, ExportedMessage):
            report.messages += 1
            queues.add(line.parking_queue)
            if line.number != report.messages:
                problem = f"message {line.number} stands where message {report.messages} belongs"
            elif not strip:
                problem = _unfit(line, user)
        if problem:
            problems.append(f"line {number}: {problem}")
        if head is None or len(problems) == _PROBLEMS_AT_MOST:
            break
    if head is None and not problems:
        problems.append("it is empty")
    if problems or head is None:
        raise Refused(
            f"{path} cannot be restored; nothing was done",
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
    routed = [name for name in _ROUTED if name in message.header.headers]
    if routed:
        return (
            f"it has a {routed[0]} header, by which RabbitMQ would route copies (it is restored without with --strip)"
        )
    return None


def _messages(path: str) -> Iterator[ExportedMessage]:
    for _, line in read_export(path):
        if isinstance(line, ExportedMessage):
            yield line


async def _require(broker: Broker, queues: set[str]) -> None:
    missing = []
    for queue in sorted(queues):
        channel = await broker.connection.open_channel()
        try:
            await channel.queue_depth(queue)
        except BrokerError as error:
            if error.code != _NOT_FOUND:
                raise
            missing.append(f"there is no queue {queue}")
        finally:
            await channel.close()
    if missing:
        raise NotApplied(
            "the messages have no place to go back to; nothing was done",
            problems=missing,
            hint="apply the topology, or name another queue with --to",
        )


class _Journal:
    """The numbers of the messages that were confirmed, in the file `FILE.restored`."""

    def __init__(self, path: str, file: IO[bytes], done: set[int]) -> None:
        self.done = done
        self._path = path
        self._file = file
        self._new: list[int] = []

    @classmethod
    @contextmanager
    def open(cls, export: str, export_id: str, to: str, again: bool) -> Iterator[_Journal]:
        """Raises Refused: another restore of the file is running, or it was restored to another queue before."""
        path = export.rstrip("/") + ".restored"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise AmqpflowError(
                f"cannot write {path}: {error.strerror}", hint="what was restored is recorded beside the export"
            ) from error
        with os.fdopen(descriptor, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Refused(f"another restore of {export} is running") from None
            if again:
                file.truncate(0)
            written = file.read()
            whole = written[: written.rfind(b"\n") + 1]  # a last line without an end was not written whole
            file.truncate(len(whole))
            file.seek(len(whole))
            started = json.dumps({"format": _FORMAT, "version": 1, "export": export_id, "to": to}).encode() + b"\n"
            if not whole:
                file.write(started)
            elif not whole.startswith(started):
                raise Refused(
                    f"{path} tells of another restore than this: of another export, or to another queue",
                    hint="--again forgets it and restores all messages",
                )
            done = {int(each) for each in whole.split(b"\n")[1:] if each.isdigit()}
            journal = cls(path, file, done)
            journal.write()
            yield journal

    def confirmed(self, number: int) -> None:
        """This message is in its queue."""
        self._new.append(number)

    def write(self) -> None:
        """What was confirmed is on the disk."""
        try:
            self._file.writelines(b"%d\n" % each for each in self._new)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise AmqpflowError(f"cannot write {self._path}: {error.strerror}") from error
        self._new.clear()
