"""Report a worker process to the process that started it: a line of JSON a second, over a pipe."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from amqpflow.delivery.crashes import Suspect
from amqpflow.model.clip import NAME_MAX, clip

from .runnable import Runnable
from .waiting import end

VARIABLE = "AMQPFLOW_STATUS_FD"  #: names the pipe's file descriptor
WORKER = "AMQPFLOW_WORKER"  #: the number of a worker, from 1
EVERY = 1.0  #: seconds
LONGEST_LINE = 4096  #: bytes; POSIX writes so much to a pipe whole or not at all (PIPE_BUF on Linux)
_SHORTEST_TEXT = 64  #: bytes of a problem's text, before problems are left out
_HANDLED = 4  #: suspects that are named, those that were lost most often first


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    ready: bool
    started: bool = False  #: it has consumed: an end from now on does not mean that it cannot start
    live: bool = True  #: False when only a restart helps
    problems: Mapping[str, str] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    handled: tuple[Suspect, ...] = ()  #: messages that were lost before and are handled now


def encode(status: WorkerStatus) -> bytes:
    """Return a status as a line of at most `LONGEST_LINE` bytes.

    An error's text may be of any length, and a consumer may have any number of queues. Texts are cut first; then
    problems are left out, and the last one says how many.
    """
    texts = list(status.problems.items())
    limit, shown = 1024, len(texts)
    while len(line := _line(status, _fitted(texts, shown, limit))) > LONGEST_LINE and (shown or limit > _SHORTEST_TEXT):
        if limit > _SHORTEST_TEXT:
            limit //= 2
        else:
            shown -= 1
    return line


def _fitted(texts: list[tuple[str, str]], shown: int, limit: int) -> dict[str, str]:
    fitted = {clip(subject, NAME_MAX): clip(text, limit) for subject, text in texts[:shown]}
    if left := len(texts) - shown:
        fitted["more"] = f"{left} further problems"
    return fitted


def _line(status: WorkerStatus, problems: Mapping[str, str]) -> bytes:
    fields = {
        "ready": status.ready,
        "started": status.started,
        "live": status.live,
        "problems": problems,
        "totals": status.totals,
        "handled": [
            [clip(each.queue, NAME_MAX), clip(each.message, NAME_MAX), each.lost, each.alone]
            for each in sorted(status.handled, key=lambda each: -each.lost)[:_HANDLED]
        ],
    }
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def decode(line: bytes) -> WorkerStatus | None:
    """Return the status in a line; None if it is not a line of ours, such as one that a crash cut short."""
    try:
        found = json.loads(line)
        return WorkerStatus(
            ready=bool(found["ready"]),
            started=bool(found["started"]),
            live=bool(found.get("live", True)),
            problems=dict(found["problems"]),
            totals=dict(found["totals"]),
            handled=tuple(
                Suspect(queue=str(queue), message=str(message), lost=int(lost), alone=bool(alone))
                for queue, message, lost, alone in found.get("handled", ())
            ),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


@asynccontextmanager
async def report_to_parent(consumer: Runnable) -> AsyncIterator[Callable[[], object]]:
    """Report the consumer to the parent, if there is one; yield a function that reports now.

    The consumer stops when the parent is gone.
    """
    descriptor = os.environ.pop(VARIABLE, None)
    if descriptor is None:
        yield lambda: None
        return
    pipe = int(descriptor)
    os.set_blocking(pipe, False)
    reporting = asyncio.create_task(_report(consumer, pipe))
    consumer.suspects.on_change = partial(_write, consumer, pipe)  # before a suspect starts, which may end the process
    try:
        yield partial(_write, consumer, pipe)
    finally:
        await end([reporting])
        consumer.suspects.on_change = lambda: None
        _write(consumer, pipe, ends=True)
        os.close(pipe)


async def _report(consumer: Runnable, pipe: int) -> None:
    while _write(consumer, pipe):  # noqa: ASYNC110 - a beat, not a wait for something
        await asyncio.sleep(EVERY)
    consumer.stop_soon()


def _write(consumer: Runnable, pipe: int, *, ends: bool = False) -> bool:
    status = WorkerStatus(
        ready=consumer.healthy and not ends,
        started=consumer.started,
        live=consumer.live,
        problems=dict(consumer.problems),
        totals=dict(consumer.totals),
        handled=tuple(consumer.suspects.handled.values()),
    )
    try:
        os.write(pipe, encode(status))
    except BlockingIOError:
        pass  # the parent is busy; the next line says the same and more
    except OSError:
        return False
    return True
