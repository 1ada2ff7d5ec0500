"""A delivery as its handler should see it: the same message on every attempt (guarantee G4)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import EllipsisType
from typing import Any

from amqpflow.model.headers import COUNTERS, DUE_AT, KEPT, LOST, NEVER_TRAVELS, PREFIX, QUEUE
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties, replace_properties
from amqpflow.model.raw_headers import RawHeaders
from amqpflow.model.record import FailureRecord, as_int, as_text, read_record

_PROPERTIES_OF_OURS = ("expiration", "user_id")  #: kept in the failure record, since the broker would act on them again
_QUEUE, _DUE_AT, _LOST = (
    bytes((len(name),)) + name.encode() for name in (QUEUE, DUE_AT, LOST)
)  #: as they stand in a header table
_TIME = struct.Struct(">cq")


class Incoming:
    """A delivery and the record of its earlier attempts, if this queue wrote one.

    Most messages are acked, and then none of their headers matters: they are read when they are asked for. So
    is the record, but for the queue that wrote it: records of other queues are ignored, and removed from every copy.
    """

    __slots__ = ("_message_id", "_record", "delivery", "native")

    def __init__(self, delivery: Delivery, *, native: bool = False) -> None:
        """`native`: the queue's retries are RabbitMQ's own, and counted by it."""
        self.delivery = delivery
        self.native = native
        self._record: FailureRecord | EllipsisType | None = ...
        self._message_id: str | EllipsisType | None = ...

    @property
    def record(self) -> FailureRecord | None:
        """The record of earlier attempts; None on a first attempt, and when the headers cannot be read."""
        record = self._record
        if record is ...:
            record = None
            if _QUEUE in self.delivery.header.payload:
                try:
                    record = read_record(self.delivery.headers, self.delivery.queue)
                except ValueError:
                    pass  # the table is not whole, so that no copy of it can be made either
            # at last and at once: a handler in a thread, late by now, may ask as well
            self._record = record
        return record

    def is_due(self, now: int) -> bool:
        """Return whether it is certain, without decoding anything, that no `x-amqpflow-due-at` is after now (ms)."""
        payload = self.delivery.header.payload
        at = payload.find(_DUE_AT)
        if at < 0:
            return True
        # what is found may be the header, or stand in the value of another: if it is the only one, neither is later
        value = payload[at + len(_DUE_AT) : at + len(_DUE_AT) + _TIME.size]
        return (
            len(value) == _TIME.size
            and value.startswith(b"l")
            and _TIME.unpack(value)[1] <= now
            and payload.find(_DUE_AT, at + 1) < 0
        )

    @property
    def may_have_been_lost(self) -> bool:
        """Whether a delivery of it may have ended without an answer. For most messages it is certain that none did."""
        return may_have_been_lost(self.delivery)

    @property
    def message_id(self) -> str | None:
        """None when it cannot be read, too."""
        message_id = self._message_id
        if message_id is ...:
            try:
                message_id = self.delivery.header.message_id
            except ValueError:
                message_id = None
            self._message_id = message_id
        return message_id

    @property
    def correlation_id(self) -> str | None:
        """None when it cannot be read, too."""
        try:
            return self.delivery.properties.correlation_id
        except ValueError:
            return None

    @property
    def attempts_recorded(self) -> int:
        """Attempts that our headers count: those before our last publish of the message."""
        return self.record.attempts if self.record else 0

    @property
    def attempts_made(self) -> int:
        """Attempts before this one. On a native queue the broker counts them, and a crash with them (fact 8.3)."""
        return self.attempts_recorded + (self.deliveries_lost if self.native else 0)

    @property
    def deliveries_lost(self) -> int:
        """How often a quorum queue got it back without an answer: a crash, a lost connection, or a requeue."""
        # a producer may have written the headers; the queue has, once the message is redelivered and counted (fact 1.8)
        if not self.delivery.redelivered:
            return 0
        try:
            count = _count(self.delivery.headers, "x-delivery-count") or 0
            # RabbitMQ 4.3 does not count a requeue, and leaves a producer's count alone until it counts; but it says
            # how often it has handed the message out, so that a forged count is one for each requeue (fact 1.8)
            handed_out = _count(self.delivery.headers, "x-acquired-count")
            return count if handed_out is None else min(count, handed_out)
        except ValueError:
            return 0  # what needs its headers finds that they cannot be read

    @property
    def count_may_be_another_queue_s(self) -> bool:
        """Whether RabbitMQ dead-lettered it here, as from a retry queue, and no copy of ours was made since.

        The first delivery after such a hop may have the flag `redelivered` and the counts of the queue before, and
        RabbitMQ 4.3 continues counting from them (facts 3.4, 3.6).
        """
        try:
            return "x-death" in self.delivery.headers
        except ValueError:
            return True

    @property
    def exchange(self) -> str:
        """The exchange it was first published to, not the default exchange it came back through."""
        if self.record is None or self.record.routing_key is None:
            return self.delivery.exchange
        return self.record.exchange or ""

    @property
    def routing_key(self) -> str:
        """The routing key it was first published with."""
        recorded = self.record.routing_key if self.record else None
        return self.delivery.routing_key if recorded is None else recorded

    @property
    def original(self) -> Mapping[str, Any]:
        """The properties and headers that must not travel with a copy: those of the record, or of a first delivery.
        Raises ValueError: a header of the producer's that is to be kept cannot be decoded.
        """
        if self.record is not None:
            return self.record.original
        headers = self.delivery.headers
        kept: dict[str, Any] = {name: headers[name] for name in sorted(KEPT.intersection(headers))}
        if self.delivery.header.acts_on_the_broker:
            received = self.delivery.properties
            for name in _PROPERTIES_OF_OURS:
                if (value := getattr(received, name)) is not None:
                    kept[name] = value
        return kept

    @property
    def encoded_traveling_headers(self) -> bytes:
        """The producer's headers that a copy carries, as they came: a table without its length. Raises ValueError."""
        headers = self.delivery.headers
        return headers.encoded(without=NEVER_TRAVELS, prefix=PREFIX) if isinstance(headers, RawHeaders) else b""

    @property
    def properties(self) -> Properties:
        """The properties for the handler, with those from the record that do not travel. Raises ValueError: one of
        them, or a header that is shown, cannot be decoded.
        """
        received = self.delivery.properties
        headers = self.delivery.headers
        hidden = COUNTERS if self.record is None else NEVER_TRAVELS
        shown = {name: headers[name] for name in headers if name not in hidden and not name.startswith(PREFIX)}
        if self.record is None:
            return replace_properties(received, headers=_own(shown))
        original = self.record.original
        shown.update({name: original[name] for name in KEPT if name in original})
        return replace_properties(
            received,
            headers=_own(shown),
            expiration=as_text(original.get("expiration")),
            user_id=as_text(original.get("user_id")),
        )


def may_have_been_lost(delivery: Delivery) -> bool:
    """Return whether a delivery of its message may have ended without an answer."""
    return delivery.redelivered or _LOST in delivery.header.payload


def _count(headers: Mapping[str, Any], name: str) -> int | None:
    whole = as_int(headers.get(name))
    return whole if whole is not None and whole >= 0 else None


def _own(headers: dict[str, Any]) -> dict[str, Any]:
    """Copy what can be changed: what a handler does to its headers must not travel with the retry."""
    return {name: _copied(value) for name, value in headers.items()}


def _copied(value: Any) -> Any:
    # deepcopy takes 0.5 us for each of the tens of thousands of values that fit into a frame
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_copied(each) for each in value]
    return bytearray(value) if isinstance(value, bytearray) else value
