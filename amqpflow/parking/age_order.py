"""Bring messages of a queue that delivers by priority into the order of their age.

A quorum queue of RabbitMQ 4 and a classic queue with x-max-priority deliver messages of one priority in their order,
and those of different priorities mixed (fact 12.4). The clocks that say when a message was parked may differ: within
one priority the queue's order holds, whatever they say.
"""

from __future__ import annotations

from array import array

_UNSET = -1  #: no priority; none is negative


class AgeOrder:
    """The order of messages by age. It takes ten bytes a message."""

    def __init__(self) -> None:
        self._at = array("q")  # when it was parked; within a priority never before the one in front of it
        self._latest: dict[int, int] = {}
        self._last = 0

    def add(self, priority: int | None, at: int | None) -> None:
        """Add the next message in the order of delivery; `at` in ms since the epoch, None when it does not say."""
        key = _UNSET if priority is None else priority
        before = self._latest.get(key)
        if at is None:
            # it stands with its neighbours: those of its priority, else those that were delivered before it
            at = self._last if before is None else before
        self._last = self._latest[key] = max(at, before) if before is not None else at
        self._at.append(self._last)

    def order(self) -> array[int] | None:
        """Return the numbers of the messages from 0, the oldest first; None when that is the order of delivery."""
        if len(self._latest) < 2:
            return None
        return array("Q", sorted(range(len(self._at)), key=self._at.__getitem__))
