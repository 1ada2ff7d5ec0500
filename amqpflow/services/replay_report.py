"""What a replay did, as a value."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .replay_plan import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftBehind:
    """A message that was to be replayed and is still parked."""

    id: str
    message_id: str | None
    why: str
    in_doubt: bool  #: a copy may be in the work queue


@dataclass(slots=True, kw_only=True)
class ReplayReport:
    """What a replay did."""

    topology: str
    queue: str
    parking_queue: str
    replay_id: str
    replayed: int = 0
    groups: Counter[Group] = field(default_factory=Counter)  #: of those replayed
    failed: int = 0  #: certainly not in the work queue, still parked
    in_doubt: int = 0  #: still parked, and perhaps in the work queue too
    left_behind: list[LeftBehind] = field(default_factory=list)  #: the first 100 of both
    others: int = 0  #: of other work queues, or not selected: not touched
    misplaced: int = 0  #: of these, those of work queues that are not parked here: no replay takes them
    came_back: int = 0  #: replayed by this run, and parked again while it went on
    remaining: int | None = None  #: ready in the parking queue afterwards
    stopped: str | None = None  #: why it ended before its end
    hint: str = ""
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Everything that was selected was replayed."""
        return not (self.failed or self.in_doubt or self.stopped or self.interrupted)
