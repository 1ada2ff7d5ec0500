"""What to read: parking queues of a topology, or queues that no file declares."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from amqpflow.errors import UsageError
from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.observe import Broker
from amqpflow.services.loading.topology import unknown_queue

from .options import ReadOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTarget:
    """What to read, and how."""

    broker: Broker
    compiled: CompiledTopology  #: that of no file has neither queues nor routes
    queues: tuple[str, ...]  #: parking queues, in the order in which they are read
    options: ReadOptions = field(default_factory=ReadOptions)
    locked: bool = False  #: the caller has the reading lock of the queues
    stop: asyncio.Event = field(init=False)  #: that of the options, or one that nobody sets

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", self.options.stop or asyncio.Event())

    @property
    def is_stopped(self) -> bool:
        return self.stop.is_set()

    def progress(self, queue: str, seen: int, expected: int) -> None:
        if self.options.on_progress is not None:
            self.options.on_progress(queue, seen, expected)


def read_target(
    broker: Broker, compiled: CompiledTopology, queues: Sequence[str] = (), options: ReadOptions | None = None
) -> ReadTarget:
    """Return the target for messages of these work queues or parking queues; all of the topology when there are none.

    `options.from_queues` are read instead. Raises UsageError: the file has no such queue, or there is nothing to read.
    """
    options = options or ReadOptions()
    if options.from_queues:
        read = options.from_queues
    elif not compiled.name:
        raise UsageError("no queue to read", hint="name a topology file, or a queue with `from_queues`")
    else:
        read = [each for queue in queues or (None,) for each in parking_queues_of(compiled, queue)]
    return ReadTarget(broker=broker, compiled=compiled, queues=tuple(dict.fromkeys(read)), options=options)


def parking_queues_of(compiled: CompiledTopology, queue: str | None) -> Sequence[str]:
    """Return the parking queues of a work or parking queue, or (None) of the whole topology. Raises UsageError."""
    if queue is None:
        return compiled.parking_queues
    if queue in compiled.routes:
        return (compiled.routes[queue].parking_queue,)
    if queue in compiled.parking_queues:
        return (queue,)
    raise unknown_queue(compiled, queue, (*compiled.routes, *compiled.parking_queues))
