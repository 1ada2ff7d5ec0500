"""Messages that wait to be replayed, in order. One waits for another if a return could not tell them apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from amqpflow.parking.parked import ParkedMessage

Same = tuple[str, str, str]  #: what a return names: exchange, routing key, hop
_Entry = tuple[ParkedMessage, float]


class WaitingMessages:
    """A queue. Times are seconds of the event loop."""

    def __init__(self) -> None:
        self.size = 0  #: bytes of their properties and bodies
        self._in_order: deque[_Entry] = deque()
        self._aside: dict[Same, deque[_Entry]] = {}  # those that wait for an outstanding one
        self._released: deque[_Entry] = deque()

    def __bool__(self) -> bool:
        return bool(self.ready or self._aside)

    @property
    def ready(self) -> int:
        return len(self._in_order) + len(self._released)

    @property
    def since(self) -> float:
        """Return when the message that has waited longest arrived. Raises ValueError: there is none."""
        return min(each[0][1] for each in (self._in_order, self._released, *self._aside.values()) if each)

    def add(self, parked: ParkedMessage, since: float) -> None:
        self._in_order.append((parked, since))
        self.size += parked.delivery.size

    def set_aside(self, same: Same, parked: ParkedMessage, since: float) -> None:
        """Let a message that was taken wait until `release` finds that its like is not outstanding any more."""
        self._aside.setdefault(same, deque()).append((parked, since))
        self.size += parked.delivery.size

    def release(self, may_be_sent: Callable[[Same], bool]) -> None:
        """Let one of each kind that may be sent now be the next."""
        for same in [same for same in self._aside if may_be_sent(same)]:
            alike = self._aside[same]
            self._released.append(alike.popleft())
            if not alike:
                del self._aside[same]

    def take(self) -> _Entry | None:
        """Remove and return the next message with the time of its arrival; None when none can be sent now."""
        queue = self._released or self._in_order
        if not queue:
            return None
        entry = queue.popleft()
        self.size -= entry[0].delivery.size
        return entry
