"""Keep equal failures from flooding the log: after some lines of a kind, count them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable

from amqpflow.delivery.log_lines import WINDOW, Lines, is_over, with_one_more

Tell = Callable[[int, float], None]
"""Logs how many lines were left out, in how many seconds."""

_KINDS_MAX = 1000  #: kinds of lines that are counted at a time


class LogLimit:
    """Decides whether each line is written. The lines left out are counted when the window of their kind ends."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, Lines] = {}  # the oldest first
        self._tell: dict[Hashable, Tell] = {}  # of the kinds that have left something out
        self._timers: dict[Hashable, asyncio.TimerHandle] = {}

    def admits(self, kind: Hashable, tell: Tell) -> bool:
        """Return whether to write one more line of this kind.

        Args:
            kind: equal for lines that stand for one another.
            tell: called later, if this line is left out, with how many were. It must not keep a message or an error.
        """
        now = time.monotonic()
        lines = self._kinds.get(kind)
        if lines is not None and is_over(lines, now):
            self._end(kind)
            lines = None
        lines = self._kinds[kind] = with_one_more(lines, now)
        if not lines.left_out:
            if len(self._kinds) > _KINDS_MAX:
                self._end(next(iter(self._kinds)))
            return True
        if kind not in self._tell:
            self._tell[kind] = tell
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return False  # counted with the next line of the kind, or at the end
            self._timers[kind] = loop.call_later(lines.since + WINDOW - now, self._end, kind)
        return False

    def end(self) -> None:
        for kind in list(self._kinds):
            self._end(kind)

    def _end(self, kind: Hashable) -> None:
        lines, tell, timer = self._kinds.pop(kind), self._tell.pop(kind, None), self._timers.pop(kind, None)
        if timer is not None:
            timer.cancel()
        if tell is not None:
            tell(lines.left_out, min(WINDOW, time.monotonic() - lines.since))
