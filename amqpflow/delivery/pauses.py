"""How long to wait before something is tried again: longer each time, and not all at once."""

from __future__ import annotations

LONGEST_PAUSE = 10.0  #: seconds between two tries to reach the broker


def spread(wait: float, chance: float) -> float:
    """
    Half to all of a wait, so that the many clients of a broker that was restarted do not come back in one moment.

    Args:
        wait: in seconds.
        chance: from 0 to 1, at random.
    """
    return wait * (0.5 + 0.5 * chance)


def still_to_wait(wait: float, chance: float, took: float) -> float:
    """What is left of `spread` after a try that took so many seconds: a try that timed out has waited already."""
    return max(0.0, spread(wait, chance) - took)
