"""Read an export to its end before anything is restored: is it whole, and can each message be published as it is?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from amqpflow.errors import RefusedError
from amqpflow.model.headers import ROUTING, SCHEDULING
from amqpflow.parking.export import Checks, Discarded, ExportedMessage, ExportEnd, ExportHead

from .export_file import LineCutOff, read_export
from .restore_report import RestoreOptions, RestoreReport

ACTING = sorted(ROUTING | SCHEDULING)  #: headers by which RabbitMQ would do more than put a message into its queue
_PROBLEMS_AT_MOST = 20


def check_export(
    source: str | IO[bytes], user: str, options: RestoreOptions
) -> tuple[ExportHead, set[str], RestoreReport]:
    """Read the file to its end, and return its head, the queues that its messages go to, and a report to begin with.
    Raises RefusedError: it is damaged, or holds a message that cannot be published as it is.
    """
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
            problem = problem or "it comes after the end of the export"
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
                problem = problem or f"message {line.number} is in the place of message {report.messages}"
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
            hint="" if not any("`strip`" in each for each in problems) else "`strip` restores them without",
        )
    return head, queues, report


def _unfit(message: ExportedMessage, user: str) -> str | None:
    properties = message.header.properties
    if properties.user_id and properties.user_id != user:
        return (
            f"its user_id is {properties.user_id!r}, with which {user!r} may not publish "
            "(it is restored without with `strip`)"
        )
    for name in ACTING:
        if name in message.header.headers:
            does = "route copies" if name in ROUTING else "hold it back where queues support delays"
            return f"it has a {name} header, by which RabbitMQ would {does} (`strip` restores it without)"
    return None


def exported_messages(source: str | IO[bytes]) -> Iterator[ExportedMessage]:
    for _, line in read_export(source):
        if isinstance(line, ExportedMessage):
            yield line
