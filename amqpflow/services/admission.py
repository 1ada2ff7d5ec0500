"""Which of the deliveries that a session holds may start: what pauses it, what is handled alone, what is tried."""

from __future__ import annotations

import random
from collections import deque

from amqpflow.model.message import Delivery


class Admission:
    """
    What may start in one session, by delivery tags.

    Three things keep deliveries waiting, each for a reason of its own, and several at once: one that is handled alone,
    those that will be, and an outage, during which a single one may be tried. One that cannot be settled keeps no other
    waiting; it only takes a place of the prefetch.
    """

    def __init__(self) -> None:
        self.held_up: set[int] = set()  #: cannot be settled now
        self.alone: int | None = None  #: in so many crashes that nothing runs beside it
        self.aside: deque[Delivery] = deque()  #: to be handled alone when the others are done
        self.outage = False
        self.tried: int | None = None  #: the one that was let start although there is an outage
        self.single = False  #: one may be, and none has started yet

    @property
    def paused(self) -> bool:
        """Something keeps deliveries waiting."""
        return self.outage or self.alone is not None

    @property
    def running(self) -> bool:
        """One that waits may start."""
        return not (self.alone is not None or (self.outage and not self.single))

    def wants_more(self, waiting: int) -> bool:
        """More are to be consumed; `waiting` ones are held already and have not started."""
        if self.alone is not None or self.aside:
            return False
        return not self.outage or (self.single and not waiting)

    def started(self, tag: int) -> None:
        """A delivery was let start."""
        if self.single:
            self.single, self.tried = False, tag

    def next_alone(self) -> Delivery:
        """One of those that were set aside; any of them may be the one that kills: those before it are rid of it."""
        at = random.randrange(len(self.aside))
        delivery = self.aside[at]
        del self.aside[at]
        self.alone = delivery.delivery_tag
        self.started(delivery.delivery_tag)
        return delivery

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
