"""How fast a handler is called: rates as people write them, and when the next call may begin."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_SLACK = 0.1  #: seconds: an event loop is late now and then, and what it missed so may be caught up with


def parse_rate(text: str) -> float:
    """Calls a second from 100/s, 5000/m or 10/h. Raises ValueError."""
    match = _RATE.fullmatch(text) if isinstance(text, str) and len(text) <= 32 else None
    rate = float(match[1]) / _SECONDS[match[2]] if match else 0.0
    if not 0 < rate <= 1_000_000:
        raise ValueError(f"{text!r} is not a rate: write it like 100/s, 5000/m or 10/h")
    return rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Calls at even distances: one for each `interval` seconds, and no burst after an idle time."""

    interval: float
    next_at: float = float("-inf")

    def begin(self, now: float) -> tuple[Pace, float]:
        """The pace after one more call, and the time when that call may begin."""
        at = self.next_at if self.next_at >= now - _SLACK else now
        return replace(self, next_at=at + self.interval), max(at, now)
