"""The request of a restore, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field

from amqpflow.parking.export import ExportedMessage

NAMED_AT_MOST = 100  #: messages that a report names


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRestored:
    """A message of the export that could not be restored."""

    number: int  #: of the message in the export
    message_id: str | None
    why: str
    in_doubt: bool  #: it may be in its queue


@dataclass(slots=True, kw_only=True)
class RestoreReport:
    """The result of a restore."""

    file: str
    messages: int = 0  #: in the file
    restored: int = 0  #: confirmed now
    before: int = 0  #: confirmed by earlier runs, in this place
    still_parked: int = 0  #: of the others, those that are in their queue anyway
    taken_out: int = 0  #: messages at the beginning of the file that a discard certainly took out of their queues
    equal: int = 0  #: of those, restored now although an equal message is parked, which is another one
    changed: int = 0  #: of those restored now, without what `strip` leaves out
    failed: int = 0  #: certainly not restored
    in_doubt: int = 0  #: perhaps in their queue: the next restore looks
    left_behind: list[NotRestored] = field(default_factory=list)  #: the first 100 of both
    finished: bool = True  #: the export has its end: its writer was not killed, and it was copied whole
    cut_off: int | None = None  #: number of the last line when it has no end; it was not restored
    interrupted: bool = False
    stopped: str | None = None  #: why it ended before its end
    queues: dict[str, int] = field(default_factory=dict)  #: parking queue -> messages restored now
    notes: list[str] = field(default_factory=list)  #: for people

    @property
    def complete(self) -> bool:
        """Tell whether the export is whole, and each of its messages is restored or still parked."""
        done = self.restored + self.before + self.still_parked
        return self.finished and self.stopped is None and not self.interrupted and done == self.messages


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """How to restore."""

    to: str | None = None  #: put all messages into this queue
    strip: bool = False  #: leave out what would act on RabbitMQ: user_id, CC, BCC, x-opt-delivery-time and -delay
    again: bool = False  #: forget what was restored before
    duplicates: bool = False  #: restore also messages that are still parked; the queues are not read

    def queue_of(self, message: ExportedMessage) -> str:
        return self.to if self.to is not None else message.parking_queue
