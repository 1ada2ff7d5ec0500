"""Decide which of a session's deliveries may start: what pauses it, what is handled alone, what is tried."""

from __future__ import annotations


class Admission:
    """Decides what may start in one session, by delivery tags.

    Two causes keep deliveries waiting, and both may hold at once: a delivery that is handled alone, here or in another
    session, and an outage, during which a single delivery may be tried. A delivery that cannot be settled keeps no
    other waiting; it only takes up the prefetch.
    """

    def __init__(self) -> None:
        self.held_up: set[int] = set()  #: cannot be settled now
        self.alone: int | None = None  #: the delivery that was in so many crashes that nothing runs beside it
        self.elsewhere = 0  #: suspects that wait until a session of another queue has handled its own
        self.outage = False
        self.tried: int | None = None  #: the delivery that was let start despite the outage
        self.single = False  #: one delivery may be tried, and none has started yet

    @property
    def paused(self) -> bool:
        return bool(self.outage or self.elsewhere or self.alone is not None)

    @property
    def running(self) -> bool:
        return not (self.elsewhere or self.alone is not None or (self.outage and not self.single))

    def wants_more(self, waiting: int) -> bool:
        """Return whether to consume more; `waiting` deliveries are held already and have not started."""
        if self.elsewhere or self.alone is not None:
            return False
        return not self.outage or (self.single and not waiting)

    def started(self, tag: int) -> None:
        """Note that a delivery was let start."""
        if self.single:
            self.single, self.tried = False, tag

    def not_started(self, tag: int) -> None:
        """Note that a delivery was let start and is put off. If it was to be tried, another one is tried."""
        if self.tried == tag:
            self.single, self.tried = self.outage, None

    def hold(self, tag: int) -> bool:
        """Note that a delivery cannot be settled now; False if that was known. In an outage another may be tried."""
        if tag in self.held_up:
            return False
        self.held_up.add(tag)
        if self.tried == tag:
            self.tried = None
        return True

    def settled(self, tag: int) -> None:
        """Let a settled delivery keep no other waiting."""
        if self.alone == tag:
            self.alone = None

    def shut(self) -> None:
        """Begin an outage."""
        self.outage, self.single = True, False

    def try_one(self) -> None:
        """Let the next delivery that may start be tried."""
        self.single, self.tried = True, None

    def open(self) -> None:
        self.outage = self.single = False
        self.tried = None
