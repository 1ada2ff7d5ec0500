"""The suspects that a process handles: one at a time in all its queues, and told of before they start.

What a process was doing when it died is lost with it, but for what it told its parent before.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from amqpflow.delivery.incoming import Incoming

if TYPE_CHECKING:
    from .isolation import Isolation

_REMEMBERED = 10_000  #: messages whose lost deliveries are remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A message that was lost before and is being handled, for those who look for what killed a process."""

    queue: str
    message: str  #: the message id; without one a hash of the body
    lost: int  #: deliveries that ended without an answer before this one
    alone: bool  #: nothing of its queue, and no other suspect, is handled beside it


def suspect(incoming: Incoming, lost: int, *, alone: bool) -> Suspect:
    """Return what a delivery is called."""
    delivery = incoming.delivery
    name = incoming.message_id or f"without id, of {len(delivery.body)} bytes, {crc32(delivery.body):08x}"
    return Suspect(queue=delivery.queue, message=name, lost=lost, alone=alone)


class Suspects:
    """Those of one process."""

    def __init__(self) -> None:
        self.on_change: Callable[[], object] = lambda: None  #: called when `handled` has changed
        self._survived: OrderedDict[Hashable, int] = OrderedDict()
        self.reset()

    def reset(self) -> None:
        """The consumer starts, perhaps once more and in another event loop."""
        self.handled: dict[int, Suspect] = {}  #: by the identity of a delivery
        self.consumers: list[Isolation] = []  #: of the queues
        self.sessions_lost: Counter[str] = Counter()  #: by queue
        self._answered: OrderedDict[Hashable, None] = OrderedDict()
        self.free = asyncio.Event()  #: none is handled alone
        self.free.set()

    def take_turn(self) -> bool:
        """Whether a suspect may be handled alone now; no other may until `end_turn`."""
        if not self.free.is_set():
            return False
        self.free.clear()
        return True

    def end_turn(self) -> None:
        """The next one may."""
        self.free.set()

    def starts(self, incoming: Incoming, lost: int, *, alone: bool) -> None:
        """A handler is about to get it: say so, as long as this process lives."""
        self.handled[id(incoming)] = suspect(incoming, lost, alone=alone)
        self.on_change()

    def ended(self, incoming: Incoming, *, answered: bool) -> None:
        """Its handler has ended. `answered`: RabbitMQ was told so; else it counts one more."""
        if self.handled.pop(id(incoming), None) is None:
            return
        if answered:
            self.forget(incoming)
            self._answered[_key(incoming)] = None
            if len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)
        self.on_change()

    def survived(self, incoming: Incoming) -> int:
        """
        How often this process may have been sent a message, and lived on when the delivery was lost.

        RabbitMQ counts what was on its way to a session that ended, too. A message whose handler has ended is counted
        for itself: one that outlasts the heartbeat loses its connection each time.
        """
        key = _key(incoming)
        if key in self._answered:
            return self._survived.get(key, 0)
        return max(self._survived.get(key, 0), self.sessions_lost.get(incoming.delivery.queue, 0))

    def live_through(self, incoming: Incoming) -> None:
        """RabbitMQ counts a delivery as lost while this process lives: its message is not the cause."""
        key = _key(incoming)
        self._survived[key] = self._survived.pop(key, 0) + 1
        if len(self._survived) > _REMEMBERED:
            self._survived.popitem(last=False)

    def forget(self, incoming: Incoming) -> None:
        """RabbitMQ counts the deliveries of this message from 0 again, or it is settled."""
        self._survived.pop(_key(incoming), None)


def _key(incoming: Incoming) -> Hashable:
    return incoming.delivery.queue, incoming.message_id, hash(incoming.delivery.body)
