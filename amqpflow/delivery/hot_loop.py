"""Does a rejected message come back too soon? Then nothing delays it, and retries would be a hot loop.

Where delayed retry does not work (an older broker, a foreign policy in place of ours) RabbitMQ delivers a rejected
message again within milliseconds, until the
delivery limit parks it (fact 8.1).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from hashlib import blake2b

from amqpflow.model.routes import NativeRetry

from .incoming import Incoming

_REMEMBERED = 10_000  #: rejections; older ones are forgotten

Key = tuple[bytes, int]


class Rejections:
    """What one consumer of a native queue rejected, and when."""

    def __init__(self, native: NativeRetry) -> None:
        self._soonest = native.min_ms / 2000  # half of the shortest delay: clocks and brokers are not that wrong
        self._rejected: OrderedDict[Key, deque[float]] = OrderedDict()
        self._count = 0

    def rejected(self, incoming: Incoming, now: float) -> None:
        """Remember a rejection. `now` is in seconds of a monotonic clock, here and below."""
        key = _key(incoming, incoming.deliveries_lost + 1)
        self._rejected.setdefault(key, deque()).append(now)
        self._rejected.move_to_end(key)
        self._count += 1
        while self._count > _REMEMBERED:
            _, times = self._rejected.popitem(last=False)
            self._count -= len(times)

    def too_soon(self, incoming: Incoming, now: float) -> float | None:
        """
        How long the message was away, in seconds, when that is less than half of the shortest delay; else None.

        Two copies of one message are told apart by their order: equal delays keep it.
        """
        if not incoming.deliveries_lost:
            return None
        key = _key(incoming, incoming.deliveries_lost)
        times = self._rejected.get(key)
        if times is None:
            return None
        away = now - times.popleft()
        self._count -= 1
        if not times:
            del self._rejected[key]
        return away if away < self._soonest else None


def _key(incoming: Incoming, count: int) -> Key:
    delivery = incoming.delivery
    identity = delivery.properties.message_id
    known = identity.encode("utf-8", "surrogatepass") if identity else delivery.body
    return blake2b(known, digest_size=16, person=b"id" if identity else b"body").digest(), count
