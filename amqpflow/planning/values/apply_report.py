"""The result of carrying out a plan."""

from __future__ import annotations

from dataclasses import dataclass

from .changes import Change, Drain, label
from .plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The change at which apply stopped, and why, in the broker's words."""

    change: Change
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponed:
    """A change that waits for messages to leave a retry queue, or for another one that does."""

    change: Change
    messages: int | None = 0  #: in the queue, of a `Drain`; None: not known; 0 for what waits for it


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyReport:
    """What was done, what failed and why, what remains. Running apply again does the rest."""

    plan: Plan
    done: tuple[Change, ...] = ()
    failed: Failure | None = None
    interrupted: tuple[Change, ...] = ()  #: under way when apply was stopped: each may be done or not
    remaining: tuple[Change, ...] = ()  #: not begun
    postponed: tuple[Postponed, ...] = ()  #: for the next apply, when the retry queues are empty

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.plan.changes)

    @property
    def only_postponed(self) -> bool:
        """Return whether only steps that wait for messages are left."""
        return self.failed is None and not self.interrupted and not self.remaining

    def due_ms(self, now_ms: int) -> int | None:
        """Return when the last message of postponed steps is due, in ms since the epoch; None when none is."""
        drains = [each.change for each in self.postponed if isinstance(each.change, Drain)]
        return max((each.due_ms or now_ms + each.delay_ms for each in drains), default=None)

    def __str__(self) -> str:
        if self.failed is not None:
            return (
                f"{label(self.failed.change)} failed: {self.failed.reason} "
                f"({len(self.done)} of {len(self.plan.changes)} steps done, {len(self.remaining)} not begun)"
            )
        return f"{len(self.done)} of {len(self.plan.changes)} steps done"
