"""Keep the suspects of a process: handled one at a time in all its queues, and reported before they start.

When a process dies, only what it reported to its parent before is known about what it was doing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol

from amqpflow.delivery.crashes import Suspect, identity, suspect
from amqpflow.delivery.incoming import Incoming

_REMEMBERED = 1000  #: messages whose handler ended the session


class QueueConsumer(Protocol):
    """The consumer of another queue of this process."""

    async def stands_back(self) -> None:
        """Hold no suspect that waits, until the one that is handled alone in another queue is settled."""


class Suspects:
    """The suspects of one process."""

    def __init__(self) -> None:
        self.on_change: Callable[[], object] = lambda: None  #: called when `handled` has changed
        self.reset()

    def reset(self) -> None:
        """Forget everything: the consumer starts, perhaps again and in another event loop."""
        self.handled: dict[int, Suspect] = {}  #: by the identity of a delivery
        self.consumers: list[QueueConsumer] = []  #: of the queues
        self._sessions_lost: Counter[str] = Counter()  # by queue
        self._own_doing: OrderedDict[Hashable, int] = OrderedDict()  # of these, by message: those that it caused
        self.free = asyncio.Event()  #: none is handled alone
        self.free.set()

    def take_turn(self) -> bool:
        """Return whether a suspect may be handled alone now; no other may until `end_turn`."""
        if not self.free.is_set():
            return False
        self.free.clear()
        return True

    def end_turn(self) -> None:
        """Let the next suspect be handled alone."""
        self.free.set()

    def starts(self, incoming: Incoming, lost: int, *, alone: bool) -> None:
        """Note what a handler is about to get: if this process dies, its parent knows."""
        self.handled[id(incoming)] = suspect(incoming, lost, alone=alone)
        self.on_change()

    def ended(self, incoming: Incoming) -> None:
        """Note that the handler has ended."""
        if self.handled.pop(id(incoming), None) is not None:
            self.on_change()

    def live_through(self, queue: str) -> None:
        """Count a session's end: RabbitMQ counts what it held as lost, but this process lives."""
        self._sessions_lost[queue] += 1

    def blame(self, message: Hashable) -> None:
        """Blame the message with this `identity` for the session's end: its handler outlasted the heartbeat."""
        self._own_doing[message] = self._own_doing.pop(message, 0) + 1
        if len(self._own_doing) > _REMEMBERED:
            self._own_doing.popitem(last=False)

    def survived(self, incoming: Incoming) -> int:
        """Count the losses that RabbitMQ may have counted for this message although it is not their cause."""
        lost = self._sessions_lost.get(incoming.delivery.queue, 0)
        return max(0, lost - self._own_doing.get(identity(incoming), 0)) if lost else 0
