"""Detect rejected messages that come back too soon: nothing delays them, and retries would be a hot loop.

Where delayed retry does not work (an older broker, a foreign policy in place of ours) RabbitMQ delivers a rejected
message again within milliseconds, until the delivery limit parks it (fact 8.1).

A consumer sees only a part of a queue, and two copies of one message cannot be distinguished: a copy that another
consumer rejected earlier may arrive just after this one rejected its own. So it takes several in a row, and a message
that is known to have a copy proves nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Any

from amqpflow.model.routes import NativeRetry

from .incoming import Incoming

_REMEMBERED = 10_000  #: rejections, and messages with copies; older ones are forgotten
_AT_MOST = 0.5  #: seconds in which a message that nothing delays is back for certain
_IN_A_ROW = 3

Key = tuple[bytes, int]


class Rejections:
    """The rejections of one consumer of a native queue, with their times."""

    def __init__(self, native: NativeRetry) -> None:
        # half of the shortest delay: clocks and brokers are not that wrong
        self._soonest = min(native.min_ms / 2000, _AT_MOST)
        self._rejected: OrderedDict[Key, float | None] = OrderedDict()  # None: it is back
        self._copied: OrderedDict[bytes, None] = OrderedDict()
        self._in_a_row = 0

    def rejected(self, incoming: Incoming, now: float) -> None:
        """Remember a rejection. `now` is in seconds of a monotonic clock."""
        identity = _identity(incoming)
        key = identity, incoming.deliveries_lost + 1
        if key in self._rejected:
            _remember(self._copied, identity, None)
        else:
            _remember(self._rejected, key, now)

    def too_soon(self, incoming: Incoming, arrived: float) -> float | None:
        """Return for how many seconds the message was away, if it and those before were back much too soon; else None.

        `arrived`: when it did, on the clock of `rejected`.
        """
        if not incoming.deliveries_lost:
            return None
        identity = _identity(incoming)
        key = identity, incoming.deliveries_lost
        rejected_at = self._rejected.get(key)
        if rejected_at is None or identity in self._copied:
            return None
        self._rejected[key] = None
        away = arrived - rejected_at
        self._in_a_row = self._in_a_row + 1 if away < self._soonest else 0
        return away if self._in_a_row >= _IN_A_ROW else None


def _remember(where: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    where[key] = value
    where.move_to_end(key)
    if len(where) > _REMEMBERED:
        where.popitem(last=False)


def _identity(incoming: Incoming) -> bytes:
    identity = incoming.message_id
    known = identity.encode("utf-8", "surrogatepass") if identity else incoming.delivery.body
    return blake2b(known, digest_size=16, person=b"id" if identity else b"body").digest()
