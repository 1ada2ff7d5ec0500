"""What a worker process tells the process that started it: a line of JSON a second, over a pipe."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .consumer import Consumer

VARIABLE = "AMQPFLOW_STATUS_FD"  #: names the pipe's file descriptor
WORKER = "AMQPFLOW_WORKER"  #: the number of a worker, from 1
EVERY = 1.0  #: seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One line."""

    ready: bool
    problems: Mapping[str, str] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)


def encode(status: Status) -> bytes:
    return json.dumps({"ready": status.ready, "problems": status.problems, "totals": status.totals}).encode() + b"\n"


def decode(line: bytes) -> Status | None:
    """None for what is no line of ours, such as one that was cut short by a crash."""
    try:
        found = json.loads(line)
        return Status(ready=bool(found["ready"]), problems=dict(found["problems"]), totals=dict(found["totals"]))
    except (ValueError, LookupError, TypeError):
        return None


@asynccontextmanager
async def told(consumer: Consumer) -> AsyncIterator[None]:
    """Tell the parent, if there is one, how the consumer does. A parent that is gone stops the consumer."""
    descriptor = os.environ.pop(VARIABLE, None)
    if descriptor is None:
        yield
        return
    pipe = int(descriptor)
    os.set_blocking(pipe, False)
    telling = asyncio.create_task(_tell(consumer, pipe))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        _write(consumer, pipe, ready=False)
        os.close(pipe)


async def _tell(consumer: Consumer, pipe: int) -> None:
    while _write(consumer, pipe, ready=consumer.healthy):  # noqa: ASYNC110 - a beat, not a wait for something
        await asyncio.sleep(EVERY)
    consumer.stop_soon()


def _write(consumer: Consumer, pipe: int, *, ready: bool) -> bool:
    status = Status(ready=ready, problems=dict(consumer.problems), totals=dict(consumer.totals))
    try:
        os.write(pipe, encode(status))
    except BlockingIOError:
        pass  # the parent is busy; the next line says the same and more
    except OSError:
        return False
    return True
