"""A circuit breaker as values: when consuming stops, for how long, and what resumes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

_PARTS = 10  # of a window: calls that are older than it are forgotten a tenth at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When a handler's failures stop its consumer: `breaker=Breaker(failure_ratio=0.5, errors=(ConnectionError,))`.

    The breaker opens when at least `minimum` calls finished within `window` seconds and `failure_ratio` of them failed,
    or at once when a call fails with an error of `trip_on`. While it is open nothing is consumed. After `open_for`
    seconds a single message is tried. If it fails, the breaker opens again, for twice as long as before, up to
    `longest`; else it closes. A message that failed goes to its retry queue as always.

    Args:
        failure_ratio: above 0, at most 1.
        window: seconds, or a timedelta.
        minimum: calls, at least 1.
        errors: what counts as a failure: exception classes, or names as in a topology's rules. Without any, every
            exception that no rule of the retry policy parks, and `Retry`.
        trip_on: errors that open the breaker at once; the same form.
        open_for: seconds, or a timedelta.
        longest: the limit up to which `open_for` doubles, seconds or a timedelta; without it, it does not double.

    Raises:
        ValueError: an argument is out of range.
    """

    failure_ratio: float = 0.5
    window: float | timedelta = 30.0
    minimum: int = 10
    errors: tuple[type[BaseException] | str, ...] = ()
    trip_on: tuple[type[BaseException] | str, ...] = ()
    open_for: float | timedelta = 30.0
    longest: float | timedelta | None = None

    def __post_init__(self) -> None:
        for name in ("window", "open_for", "longest"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, seconds_of(value, f"Breaker({name}={value!r})"))
        if not 0 < self.failure_ratio <= 1:
            raise ValueError(f"Breaker(failure_ratio={self.failure_ratio!r}): give a ratio above 0, at most 1")
        if self.minimum < 1:
            raise ValueError(f"Breaker(minimum={self.minimum!r}): give at least 1")
        if self.longest is not None and self._seconds("longest") < self._seconds("open_for"):
            raise ValueError(f"Breaker(longest={self.longest!r}): it is less than open_for={self.open_for!r}")
        for name in ("errors", "trip_on"):
            given = getattr(self, name)
            each = (given,) if isinstance(given, type | str) else tuple(given)
            if any(not isinstance(one, str) and not _is_error(one) for one in each):
                raise ValueError(f"Breaker({name}={given!r}): give exception classes, or their names")
            object.__setattr__(self, name, each)

    def _seconds(self, name: str) -> float:
        value = getattr(self, name)
        return value.total_seconds() if isinstance(value, timedelta) else float(value)

    def opens_for(self, openings: int) -> float:
        """Return the seconds for which the breaker is open, the `openings`th time in a row."""
        first = self._seconds("open_for")
        longest = first if self.longest is None else self._seconds("longest")
        return min(first * 2.0 ** min(openings - 1, 64), longest)

    @property
    def part(self) -> float:
        """Seconds of a part of its window."""
        return self._seconds("window") / _PARTS


def seconds_of(value: float | timedelta, what: str) -> float:
    """Return seconds above 0 and at most a year. Raises ValueError."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 31_536_000:
        raise ValueError(f"{what}: give seconds above 0, at most a year, or a timedelta")
    return float(seconds)


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


class Phase(StrEnum):
    """Closed: consuming. Open: not. Half-open: a single message is tried."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerState:
    """The state of a breaker. Times are in seconds of one monotonic clock."""

    phase: Phase = Phase.CLOSED
    reason: str = ""  #: why it was opened
    until: float = 0.0  #: when a single message is tried
    openings: int = 0  #: how often it was opened since it was closed last
    opened_at: float = 0.0  #: when it was opened the first of these times
    parts: tuple[tuple[int, int, int], ...] = ()  #: of the window: number, calls, failures


def counted(state: BreakerState, breaker: Breaker, now: float, *, failed: bool, trip: str = "") -> BreakerState:
    """Count a call that began while the breaker was closed. `trip`: the error of `trip_on` that it failed with."""
    if state.phase is not Phase.CLOSED:
        return state
    if trip:
        return opened(state, now, breaker.opens_for(1), trip)
    number = int(now / breaker.part)
    parts = [each for each in state.parts if each[0] > number - _PARTS]
    if parts and parts[-1][0] == number:
        parts[-1] = (number, parts[-1][1] + 1, parts[-1][2] + failed)
    else:
        parts.append((number, 1, int(failed)))
    calls, failures = sum(each[1] for each in parts), sum(each[2] for each in parts)
    if failed and calls >= breaker.minimum and failures >= breaker.failure_ratio * calls:
        reason = f"{failures} of {calls} calls failed within {breaker.part * _PARTS:g} s"
        return opened(state, now, breaker.opens_for(1), reason)
    return replace(state, parts=tuple(parts))


def opened(state: BreakerState, now: float, open_for: float, reason: str) -> BreakerState:
    """Open the breaker for `open_for` seconds from now, or for longer if it was open for longer already."""
    until = now + open_for
    if state.phase is Phase.OPEN:
        return replace(state, until=max(state.until, until))
    began = state.opened_at if state.openings else now
    return BreakerState(phase=Phase.OPEN, reason=reason, until=until, openings=state.openings + 1, opened_at=began)


def half_opened(state: BreakerState, now: float) -> BreakerState:
    """Return the half-open state when the time is over, else the state as it is."""
    due = state.phase is Phase.OPEN and now >= state.until
    return replace(state, phase=Phase.HALF_OPEN) if due else state


def tried(state: BreakerState, breaker: Breaker | None, now: float, *, failed: bool) -> BreakerState:
    """Return the state after the single message of a half-open breaker: closed, or open again."""
    if state.phase is not Phase.HALF_OPEN:
        return state
    if failed and breaker is not None:
        return opened(state, now, breaker.opens_for(state.openings + 1), "the message that was tried failed too")
    return BreakerState()
