"""When the next call of a handler with a rate may begin."""

from __future__ import annotations

from dataclasses import dataclass, replace

_SLACK = 0.1  #: seconds: an event loop is late now and then, and may catch up with what it missed


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakyBucket:
    """Calls at even distances: one for each `interval` seconds, and no burst after an idle time."""

    interval: float
    next_at: float = float("-inf")

    def begin(self, now: float) -> tuple[LeakyBucket, float]:
        """Return the bucket after one more call, and the time when that call may begin."""
        at = self.next_at if self.next_at >= now - _SLACK else now
        return replace(self, next_at=at + self.interval), max(at, now)
