"""The acks of one channel, written together: a few frames for all deliveries that were settled in one turn of the loop.

`multiple` acks everything up to a tag. It is used up to the lowest unsettled delivery, and never past it;
what was settled beyond is acked one by one. So a slow handler holds up no ack but its own, and a process that dies
between two writes has acked nothing that was not settled: what it had settled and not written comes again.
"""

from __future__ import annotations

from collections import deque
from math import inf

from .frames import ack_frame

# RabbitMQ hands a quorum queue 32 settlements of a channel at a time and keeps the others for when those are applied.
# What it keeps it forgets when the channel closes (measured on 3.10, 4.0 and 4.3): 200 acks and a close settle 33.
_KEPT_BACK_FROM = 32  #: settlements
_LATELY = 1.0  #: seconds; what was settled within them may not be applied yet


class AckBatcher:
    """Which deliveries of a channel are unsettled, and the acks that are not written yet."""

    __slots__ = ("_acked", "_channel", "_first_kept", "_last", "_unsettled", "_written_at")

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._unsettled: dict[int, None] = {}  # in the order of their tags, as they were delivered
        self._acked: list[int] = []
        self._last = 0
        self._first_kept = inf
        self._written_at: deque[float] = deque(maxlen=_KEPT_BACK_FROM)

    def delivered(self, tag: int) -> None:
        """Note a delivery. Every one of the channel must be noted, or a neighbour's ack would ack it."""
        self._unsettled[tag] = None
        self._last = tag

    def ack(self, tag: int) -> None:
        """Ack with the next `frames`."""
        self._unsettled.pop(tag, None)
        self._acked.append(tag)

    def keep(self, tag: int) -> None:
        """Hold until the channel closes or all is requeued. Of millions of such tags only the lowest is remembered."""
        if self._unsettled.pop(tag, 0) is None:
            self._first_kept = min(self._first_kept, tag)

    def forget(self, tag: int, *, multiple: bool) -> None:
        """Forget what another frame settles, which is written before the next `frames`."""
        if not multiple:
            self._unsettled.pop(tag, None)
            return
        for each in [each for each in self._unsettled if each <= tag or tag == 0]:
            del self._unsettled[each]

    def frames(self) -> tuple[bytes, int]:
        """Return the frames that ack what was passed to `ack` since the last call, and the number of deliveries."""
        if not self._acked:
            return b"", 0
        acked, self._acked = self._acked, []
        count = len(acked)
        if count == 1:
            return ack_frame(self._channel, acked[0], multiple=False), 1
        first_unsettled = min(next(iter(self._unsettled), self._last + 1), self._first_kept)
        below = [tag for tag in acked if tag < first_unsettled]
        single = [] if len(below) == count else [tag for tag in acked if tag >= first_unsettled]
        data = [ack_frame(self._channel, max(below), multiple=len(below) > 1)] if below else []
        data += [ack_frame(self._channel, tag, multiple=False) for tag in single]
        return b"".join(data), count

    def written(self, count: int, now: float) -> None:
        """Note that `count` deliveries were settled by what was written now, in seconds of the event loop."""
        self._written_at.extend([now] * min(count, _KEPT_BACK_FROM))

    def may_be_kept_back(self, now: float) -> bool:
        """Return whether a quorum queue may not know yet of all that was settled just now."""
        return len(self._written_at) == _KEPT_BACK_FROM and now - self._written_at[0] < _LATELY

    def clear(self) -> None:
        """Forget all: the channel is closed, and nothing can be settled any more."""
        self._unsettled.clear()
        self._acked.clear()
