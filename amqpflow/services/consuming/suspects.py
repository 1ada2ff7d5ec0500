"""Keep the suspects of a process: handled one at a time in all its queues, and reported before they start.

When a process dies, only what it reported to its parent before is known about what it was doing.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Protocol

from amqpflow.delivery.crashes import NONE_SURVIVED, Identity, Survived, Suspect, identity, suspect
from amqpflow.delivery.incoming import Incoming

_REMEMBERED = 10_000  #: messages that were held when their session ended
_UNDERWAY = 60.0  #: seconds after a loss; what was on its way then has come again by then, to whichever process


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
        self._held: OrderedDict[Identity, int] = OrderedDict()  # by message: lost sessions, but those that it ended
        self._recent: dict[str, deque[tuple[float, set[Identity]]]] = {}  # lost sessions, by queue
        self.free = asyncio.Event()  #: none is handled alone
        self.free.set()

    def take_turn(self) -> bool:
        """Return whether a suspect may be handled alone now; no other may until `end_turn`."""
        if not self.free.is_set():
            return False
        self.free.clear()
        return True

    def end_turn(self) -> None:
        self.free.set()

    def starts(self, incoming: Incoming, lost: int, *, alone: bool) -> None:
        """Note what a handler is about to get: if this process dies, its parent knows."""
        self.handled[id(incoming)] = suspect(incoming, lost, alone=alone)
        self.on_change()

    def ended(self, incoming: Incoming) -> None:
        if self.handled.pop(id(incoming), None) is not None:
            self.on_change()

    def live_through(self, queue: str, held: Iterable[Incoming]) -> None:
        """Note a session's end: RabbitMQ counts what it held or was sent as lost, but this process lives."""
        now, those = time.monotonic(), {identity(each) for each in held}
        for each in those:
            self._held[each] = self._held.pop(each, 0) + 1
        while len(self._held) > _REMEMBERED:
            self._held.popitem(last=False)
        recent = self._recent.setdefault(queue, deque())
        recent.append((now, those))
        while now - recent[0][0] > _UNDERWAY:
            recent.popleft()

    def blame(self, message: Identity) -> None:
        """Blame the message with this `identity` for its last session's end: its handler outlasted the heartbeat."""
        if not (recent := self._recent.get(message[0])):
            return
        _, held = recent[-1]
        if message in held and message in self._held:
            self._held[message] -= 1
        held.add(message)  # its handler may have ended before the loss was seen: then its ack was lost

    def survived(self, incoming: Incoming) -> Survived:
        """Count the losses that RabbitMQ may have counted for this message although it is not their cause."""
        recent = self._recent.get(incoming.delivery.queue)
        if recent is None:
            return NONE_SURVIVED
        message, since = identity(incoming), time.monotonic() - _UNDERWAY
        unseen = sum(message not in held for at, held in recent if at >= since)
        return Survived(held=self._held.get(message, 0), unseen=unseen)
