"""A delivery as its handler should see it: the same message on every attempt (guarantee G4)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from amqpflow.model.headers import BROKER_OWNED, COUNTERS, NEVER_TRAVELS, PREFIX
from amqpflow.model.message import Delivery, Properties, replace_properties
from amqpflow.model.quick import quick_init
from amqpflow.model.record import Record, read_record, text_of

_KEPT = NEVER_TRAVELS - COUNTERS
_PROPERTIES_OF_OURS = ("expiration", "user_id")  #: kept in the record, since the broker would act on them again


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A delivery and the record of its earlier attempts, if this queue wrote one."""

    delivery: Delivery
    record: Record | None
    native: bool = False  #: the queue's retries are RabbitMQ's own, and counted by it

    @property
    def attempts_recorded(self) -> int:
        """Attempts that our headers tell of: those before our last publish of the message."""
        return self.record.attempts if self.record else 0

    @property
    def attempts_made(self) -> int:
        """Attempts before this one. On a native queue the broker counts them, and a crash with them (fact 8.3)."""
        return self.attempts_recorded + (self.deliveries_lost if self.native else 0)

    @property
    def deliveries_lost(self) -> int:
        """How often a quorum queue got it back without an answer: a crash, a lost connection, or a give-back."""
        count = (self.delivery.properties.headers or {}).get("x-delivery-count")
        # a producer may have written the header; the queue has, once the message is redelivered (fact 1.8)
        return count if self.delivery.redelivered and type(count) is int else 0

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
        """What must not travel with a copy, from the record or, on a first attempt, from the delivery itself."""
        if self.record is not None:
            return self.record.original
        received = self.delivery.properties
        kept: dict[str, Any] = {name: value for name, value in (received.headers or {}).items() if name in _KEPT}
        for name in _PROPERTIES_OF_OURS:
            if (value := getattr(received, name)) is not None:
                kept[name] = value
        return kept

    @property
    def traveling_headers(self) -> dict[str, Any]:
        """The producer's headers that a copy carries."""
        return {
            name: value
            for name, value in (self.delivery.properties.headers or {}).items()
            if name not in NEVER_TRAVELS and not name.startswith(PREFIX)
        }

    @property
    def properties(self) -> Properties:
        """The properties for the handler, what does not travel put back from the record."""
        received = self.delivery.properties
        if self.record is None:
            shown = {
                name: value
                for name, value in (received.headers or {}).items()
                if name not in COUNTERS and not name.startswith(PREFIX)
            }
            return replace_properties(received, headers=_own(shown))
        original = self.record.original
        shown = self.traveling_headers
        shown.update({name: original[name] for name in BROKER_OWNED | {"CC"} if name in original})
        return replace_properties(
            received,
            headers=_own(shown),
            expiration=text_of(original.get("expiration")),
            user_id=text_of(original.get("user_id")),
        )


def _own(headers: dict[str, Any]) -> dict[str, Any]:
    """Copies of what can be changed: what a handler does to its headers must not travel with the retry."""
    return {name: deepcopy(value) if isinstance(value, dict | list) else value for name, value in headers.items()}


def read_incoming(delivery: Delivery, *, native: bool = False) -> Incoming:
    """Our headers count only when this queue wrote them; others are ignored, and removed from every copy."""
    record = read_record(delivery.properties.headers, delivery.queue)
    return Incoming(delivery=delivery, record=record, native=native)
