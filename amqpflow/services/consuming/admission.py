"""Which of the deliveries that a session holds may start: what pauses it, what is handled alone, what is tried."""

from __future__ import annotations


class Admission:
    """
    What may start in one session, by delivery tags.

    Two things keep deliveries waiting, each for a reason of its own, and both at once: one that is handled alone, here
    or in another session, and an outage, during which a single one may be tried. One that cannot be settled keeps no
    other waiting; it only takes a place of the prefetch.
    """

    def __init__(self) -> None:
        self.held_up: set[int] = set()  #: cannot be settled now
        self.alone: int | None = None  #: in so many crashes that nothing runs beside it
        self.elsewhere = 0  #: suspects that wait until a session of another queue has handled its own
        self.outage = False
        self.tried: int | None = None  #: the one that was let start although there is an outage
        self.single = False  #: one may be, and none has started yet

    @property
    def paused(self) -> bool:
        """Something keeps deliveries waiting."""
        return bool(self.outage or self.elsewhere or self.alone is not None)

    @property
    def running(self) -> bool:
        """One that waits may start."""
        return not (self.elsewhere or self.alone is not None or (self.outage and not self.single))

    def wants_more(self, waiting: int) -> bool:
        """More are to be consumed; `waiting` ones are held already and have not started."""
        if self.elsewhere or self.alone is not None:
            return False
        return not self.outage or (self.single and not waiting)

    def started(self, tag: int) -> None:
        """A delivery was let start."""
        if self.single:
            self.single, self.tried = False, tag

    def not_started(self, tag: int) -> None:
        """It was let start, and is put off after all: if it was to be tried, another one is."""
        if self.tried == tag:
            self.single, self.tried = self.outage, None

    def hold(self, tag: int) -> bool:
        """It cannot be settled now; False when that was known. If it was tried in an outage, another one may be."""
        if tag in self.held_up:
            return False
        self.held_up.add(tag)
        if self.tried == tag:
            self.tried = None
        return True

    def settled(self, tag: int) -> None:
        """It keeps no other waiting any more."""
        if self.alone == tag:
            self.alone = None

    def shut(self) -> None:
        """An outage began."""
        self.outage, self.single = True, False

    def try_one(self) -> None:
        """The next that may start is tried."""
        self.single, self.tried = True, None

    def open(self) -> None:
        """The outage is over."""
        self.outage = self.single = False
        self.tried = None
