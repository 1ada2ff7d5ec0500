"""What a handler may decide about a message. Each may be returned or raised."""

from __future__ import annotations

from datetime import timedelta


class Outcome(Exception):  # noqa: N818 - returned as often as raised
    """Ack | Retry | Pause | Park | Discard. They are exceptions, so that a handler may raise them from any depth."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(self.__dict__.items(), key=lambda item: item[0]))))

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in self.__dict__.items() if value is not None)
        return f"{type(self).__name__}({shown})"


class Ack(Outcome):
    """The handler is done with the message: it is acknowledged. Returning None means the same."""


class Retry(Outcome):
    """Try again later: the message is published to a retry queue and comes back as the next attempt.

    Args:
        after: how long to wait at least, a timedelta or seconds. The smallest tier that is long enough is taken;
            past the longest the message goes round until it is due, at most 10,000 times. None takes the schedule's
            next step.
        reason: free text for the failure record.

    Raises:
        ValueError: `after` is negative or not finite.
    """

    def __init__(self, after: timedelta | float | None = None, reason: str | None = None) -> None:
        super().__init__(reason or "retry")
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        if seconds is not None and not 0 <= seconds <= 315_360_000:
            raise ValueError(f"Retry(after={after!r}): give seconds from 0 to ten years, or a timedelta")
        self.after_ms: int | None = None if seconds is None else round(seconds * 1000)
        self.reason = _text(reason)


class Pause(Retry):
    """Try again later, and consume nothing else from the queue until then: for what a dependency says of itself, such
    as an HTTP 503 with Retry-After.

    The message is published to a retry queue as by `Retry(after=for_)`, which counts as an attempt: it is not held, and
    past its schedule it is parked. After the pause a single message is tried before the others follow.

    Args:
        for_: how long, a timedelta or seconds.
        reason: free text for the failure record, the log and the consumer's `problems`.

    Raises:
        ValueError: `for_` is not above 0, or not finite.
    """

    def __init__(self, for_: timedelta | float, reason: str | None = None) -> None:
        super().__init__(for_, reason)
        if not self.after_ms:
            raise ValueError(f"Pause(for_={for_!r}): give seconds above 0, or a timedelta")


class Park(Outcome):
    """Set the message aside in the parking queue now, with `reason` as the detail of its failure record."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or "park")
        self.reason = _text(reason)


class Discard(Outcome):
    """Drop the message: acknowledged, counted and logged. It is gone."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or "discard")
        self.reason = _text(reason)


def _text(reason: object) -> str | None:
    """Convert the reason to text: `raise Park(error)` is too natural to fail while a message waits."""
    if reason is None or isinstance(reason, str):
        return reason
    try:
        return str(reason)
    except Exception:
        return f"<a {type(reason).__name__} that has no text>"
