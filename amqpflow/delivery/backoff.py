"""How long to wait before another try: longer each time, and not all clients at once."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_PAUSE = 10.0  #: seconds between two tries to reach the broker


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits in seconds that double from the first one up to the longest."""

    first: float
    longest: float = LONGEST_PAUSE

    def after(self, wait: float) -> float:
        """Return the wait that follows this one; the first one follows 0."""
        return min(max(wait * 2, self.first), self.longest)


def jittered(wait: float, chance: float, took: float = 0.0) -> float:
    """Return half to all of a wait, by a chance from 0 to 1, so that clients of a restarted broker do not meet.

    `took`: seconds of the try before it: a try that timed out has waited already.
    """
    return max(0.0, wait * (0.5 + 0.5 * chance) - took)
