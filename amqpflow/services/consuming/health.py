"""Own the problems of a consumer: each part sets and clears its own causes, probes read one text a queue.

Several causes may hold at once, as when the connection is lost during an outage. The first one in `Cause` is shown, and
the next one once that is cleared.
"""

from __future__ import annotations

from enum import IntEnum, auto


class Cause(IntEnum):
    """Why a queue, or another subject, has a problem. The first one of several is shown."""

    HALTED = auto()  #: this process does not consume the queue until it is restarted
    THREADS = auto()  #: threads of the handler are overdue
    CONNECTION = auto()  #: the connection was lost, or the queue cannot be consumed on it
    ALARM = auto()  #: the broker blocks publishes
    HELD = auto()  #: messages cannot be settled now
    BREAKER = auto()  #: the circuit breaker is open
    ENDED = auto()  #: the channel ended, and another one is opened
    HANDLERS = auto()  #: handlers of ended channels have all slots
    ASIDE = auto()  #: suspects wait until the handlers that run have ended
    ALONE = auto()  #: a suspect is handled alone


#: what a session that has started leaves behind it
BEFORE_A_SESSION = tuple(each for each in Cause if each is not Cause.BREAKER)


class ConsumerHealth:
    """The owner of `Consumer.problems`."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}  #: by queue or other subject: the text that is shown
        self._causes: dict[str, dict[Cause, str]] = {}

    def set(self, subject: str, cause: Cause, text: str) -> None:
        """Set why a queue, or another subject, has a problem; replace the text that this cause had."""
        causes = self._causes.setdefault(subject, {})
        causes[cause] = text
        self.problems[subject] = causes[min(causes)]

    def clear(self, subject: str, *causes: Cause) -> None:
        """End these causes; the subject has no problem once none is left."""
        left = self._causes.get(subject, {})
        for cause in causes:
            left.pop(cause, None)
        if left:
            self.problems[subject] = left[min(left)]
        else:
            self._causes.pop(subject, None)
            self.problems.pop(subject, None)
