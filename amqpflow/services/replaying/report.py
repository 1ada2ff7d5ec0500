"""The result of a replay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .plan import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class NotReplayed:
    """A message that should have been replayed, and is still parked."""

    id: str
    message_id: str | None
    why: str
    in_doubt: bool  #: a copy may be in the work queue


@dataclass(slots=True, kw_only=True)
class ReplayReport:
    """The result of a replay."""

    topology: str
    queues: tuple[str, ...]  #: the work queues whose messages were taken
    parking_queues: tuple[str, ...]
    replay_id: str
    to: str | None = None  #: where to, when not to the work queue each message failed in
    journal: str | None = None  #: its file
    replayed: int = 0
    groups: Counter[Group] = field(default_factory=Counter)  #: of those replayed
    already: int = 0  #: an interrupted replay had sent them: they were only taken out of the parking queue
    sent_again: int = 0  #: an interrupted replay may have sent them: sent, with the hop id of that copy
    failed: int = 0  #: certainly not in the work queue, still parked
    in_doubt: int = 0  #: still parked, and perhaps in the work queue too
    left_behind: list[NotReplayed] = field(default_factory=list)  #: the first 100 of both
    others: int = 0  #: of other work queues, or not selected: not touched
    misplaced: int = 0  #: of these, those of work queues that are not parked here: no replay takes them
    unknown_origin: int = 0  #: selected, and do not say where they failed: not touched
    came_back: int = 0  #: replayed by this run, and seen parked again
    remaining: int | None = None  #: ready in the parking queues afterwards
    stopped: str | None = None  #: why it ended before its end
    hint: str = ""
    guarded: bool = False  #: it stopped by itself, since too many messages came back
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    taken: int = 0  #: messages that were sent, whatever became of them

    @property
    def queue(self) -> str:
        """Name the work queues, for people."""
        return ", ".join(self.queues)

    @property
    def parking_queue(self) -> str:
        """Name the parking queues, for people."""
        return ", ".join(self.parking_queues)

    @property
    def complete(self) -> bool:
        """Tell whether everything that was selected was replayed."""
        return self.settled and not self.unknown_origin

    @property
    def settled(self) -> bool:
        """Tell whether everything that it could take was replayed: nothing is left to resume."""
        return not (self.failed or self.in_doubt or self.stopped or self.interrupted)

    def summary(self) -> dict[str, Any]:
        """Return what the journal keeps of it."""
        return {
            "complete": self.settled,
            "replayed": self.replayed,
            "already": self.already,
            "sent_again": self.sent_again,
            "failed": self.failed,
            "in_doubt": self.in_doubt,
            "came_back": self.came_back,
            "interrupted": self.interrupted,
            "stopped": self.stopped,
            "seconds": round(self.seconds, 3),
        }
