"""The suspects that a process handles: one at a time in all its queues, and told of before they start.

What a process was doing when it died is lost with it, but for what it told its parent before.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from amqpflow.delivery.crashes import NONE_SURVIVED, Survived
from amqpflow.delivery.incoming import Incoming

if TYPE_CHECKING:
    from .isolation import Isolation

_REMEMBERED = 10_000  #: messages that were held when their session ended
_UNDERWAY = 60.0  #: seconds after a loss; what was on its way then has come again by then, to whichever process

Identity = tuple[str, str | None, int]  #: queue, message id, hash of the body


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
        self.reset()

    def reset(self) -> None:
        """The consumer starts, perhaps once more and in another event loop."""
        self.handled: dict[int, Suspect] = {}  #: by the identity of a delivery
        self.consumers: list[Isolation] = []  #: of the queues
        self._held: OrderedDict[Identity, int] = OrderedDict()  # by message: lost sessions, but those that it ended
        self._recent: dict[str, deque[tuple[float, set[Identity]]]] = {}  # lost sessions
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

    def ended(self, incoming: Incoming) -> None:
        """Its handler has ended."""
        if self.handled.pop(id(incoming), None) is not None:
            self.on_change()

    def live_through(self, queue: str, held: Iterable[Incoming]) -> None:
        """A session is over, and RabbitMQ counts what it held or was sent as lost, while this process lives."""
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
        """The message with this `identity` is why its last session is over: its handler outlasted the heartbeat."""
        if not (recent := self._recent.get(message[0])):
            return
        _, held = recent[-1]
        if message in held and message in self._held:
            self._held[message] -= 1
        held.add(message)  # its handler may have ended before the loss was seen: then its ack was lost

    def survived(self, incoming: Incoming) -> Survived:
        """How often RabbitMQ may have counted this message as lost though it is not the cause: this process lives."""
        recent = self._recent.get(incoming.delivery.queue)
        if recent is None:
            return NONE_SURVIVED
        message, since = identity(incoming), time.monotonic() - _UNDERWAY
        unseen = sum(message not in held for at, held in recent if at >= since)
        return Survived(held=self._held.get(message, 0), unseen=unseen)


def identity(incoming: Incoming) -> Identity:
    """Return what tells a message of a queue from others when it is delivered again."""
    return incoming.delivery.queue, incoming.message_id, hash(incoming.delivery.body)
