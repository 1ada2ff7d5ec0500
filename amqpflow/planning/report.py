"""What became of a plan."""

from __future__ import annotations

from dataclasses import dataclass

from .changes import Change, label
from .plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The change at which apply stopped, and why, in the broker's words."""

    change: Change
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyReport:
    """What was done, what failed and why, what remains. Running apply again does the rest."""

    plan: Plan
    done: tuple[Change, ...] = ()
    failed: Failure | None = None
    interrupted: Change | None = None  #: under way when apply was stopped: it may be done or not
    remaining: tuple[Change, ...] = ()  #: not begun

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.plan.changes)

    def __str__(self) -> str:
        if self.failed is not None:
            return (
                f"{label(self.failed.change)} failed: {self.failed.reason} "
                f"({len(self.done)} of {len(self.plan.changes)} steps done, {len(self.remaining)} not begun)"
            )
        return f"{len(self.done)} of {len(self.plan.changes)} steps done"
