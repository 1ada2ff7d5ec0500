"""How many log lines of one kind are written: a flood of equal failures is counted instead."""

from __future__ import annotations

from typing import NamedTuple

MOST = 20  #: lines of a kind within a window
WINDOW = 10.0  #: seconds


class Lines(NamedTuple):
    """The lines of one kind within a window."""

    since: float  #: when it began, of a monotonic clock, in seconds
    written: int = 0
    left_out: int = 0


def with_one_more(lines: Lines | None, now: float) -> Lines:
    """Return the lines after one more was asked for: written, or left out when the window is full.

    A window that is over is followed by one that begins now. Report before what it left out.
    """
    if lines is None or is_over(lines, now):
        return Lines(now, 1)
    if lines.written < MOST:
        return Lines(lines.since, lines.written + 1)
    return Lines(lines.since, lines.written, lines.left_out + 1)


def is_over(lines: Lines, now: float) -> bool:
    return not lines.since <= now < lines.since + WINDOW
