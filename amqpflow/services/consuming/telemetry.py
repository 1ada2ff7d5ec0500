"""Report what became of deliveries: count it, and make the events that have listeners."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import Acknowledge, LeaveToBroker, Reject, Settlement, ToParking, ToTier
from amqpflow.delivery.verdict import BadResult, CannotDecode, Crashed, Decided, Failed, Verdict
from amqpflow.model import event as e
from amqpflow.model.event import MessageAcked, MessageHandled, MessageReceived
from amqpflow.model.outcome import Retry

from .events import Events, about
from .patience import Requeued


class Totals(Counter[str]):
    """Deliveries counted by outcome. The key `given-back`, the old name of `requeued`, is answered until 1.0."""

    def __missing__(self, key: str) -> int:
        return self[_renamed(key)] if key in _RENAMED else 0

    def __contains__(self, key: object) -> bool:
        return super().__contains__(_renamed(key) if key in _RENAMED else key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the count, or `default` if there was no such delivery yet."""
        return super().get(_renamed(key) if key in _RENAMED else key, default)


_RENAMED = {"given-back": "requeued"}


def _renamed(key: Any) -> str:
    text = f"the total {key} is now {_RENAMED[key]}"
    warnings.warn(text, DeprecationWarning, stacklevel=3)
    return _RENAMED[key]


class ConsumerTelemetry:
    """Reports a consumer's deliveries to its listeners. `totals` counts them by outcome."""

    def __init__(self, events: Events, totals: Counter[str]) -> None:
        self._events = events
        self._listeners = events.listeners
        self._totals = totals

    def received(self, incoming: Incoming, waited: float) -> None:
        """Report that a handler is about to get the delivery."""
        self._totals["received"] += 1
        if MessageReceived in self._listeners:
            redelivered = incoming.delivery.redelivered
            self._events.emit(e.MessageReceived(**about(incoming), redelivered=redelivered, waited=waited))

    def handled(self, incoming: Incoming, verdict: Verdict, duration: float) -> None:
        if MessageHandled in self._listeners:
            fields = {**about(incoming), **_error(verdict)}
            self._events.emit(e.MessageHandled(**fields, outcome=_outcome(verdict), duration=duration))

    def ended(
        self, incoming: Incoming, settlement: Settlement | Requeued, duration: float, verdict: Verdict | None
    ) -> None:
        """Report that it is settled, or the broker has it back. Without a verdict its handler was not called."""
        if type(settlement) is Acknowledge and settlement.discarded is None and MessageAcked not in self._listeners:
            self._totals["acked"] += 1  # nearly every message
            return
        kind = _kind(settlement, verdict)
        self._totals[kind.outcome] += 1
        if kind not in self._listeners:
            return
        fields: dict[str, Any] = {**about(incoming), "duration": duration}
        match settlement:
            case Acknowledge(discarded=reason):
                if reason is not None:
                    fields["reason"] = reason
            case ToTier(tier=tier):
                fields |= {"delay": tier.delay_ms / 1000, "retry_queue": tier.queue}
                if verdict is not None:
                    fields |= _error(verdict) | {"reason": _asked_for(verdict)}
            case Reject(delay_ms=delay_ms):
                fields |= {"delay": delay_ms / 1000, "retry_queue": incoming.delivery.queue}
                fields |= _error(verdict) | {"reason": _asked_for(verdict)}
            case ToParking(reason=why, detail=detail):
                fields |= {"reason": why.value, "detail": detail, **_error(verdict)}
            case LeaveToBroker(why=why):
                fields |= {"reason": "by the broker", "detail": why, **_error(verdict)}
            case Requeued(why=why):
                fields["reason"] = why
        self._events.emit(kind(**fields))


def _kind(settlement: Settlement | Requeued, verdict: Verdict | None) -> type[e.MessageSettled]:
    match settlement:
        case Acknowledge(discarded=None):
            return e.MessageAcked
        case Acknowledge():
            return e.MessageDiscarded
        case ToTier():
            return e.MessagePostponed if verdict is None else e.MessageRetried
        case Reject():
            return e.MessageRetried
        case Requeued():
            return e.MessageRequeued
        case _:
            return e.MessageParked


def _outcome(verdict: Verdict) -> str:
    match verdict:
        case Decided(outcome=outcome):
            return type(outcome).__name__.lower()
        case Failed():
            return "error"
        case CannotDecode():
            return "undecodable"
        case BadResult():
            return "bad-result"
        case Crashed():
            return "crashed"


def _error(verdict: Verdict | None) -> dict[str, Any]:
    """Return what an event has of the exception that a verdict is about."""
    if isinstance(verdict, Crashed):
        return {"error_type": None}
    if isinstance(verdict, BadResult):
        return {"error_type": None, "error_location": verdict.location}
    record = verdict.error if verdict is not None else None
    if record is None:
        return {"error_type": None}
    return {
        "error_type": record.type,
        "error_message": record.message,
        "error_location": record.location,
        "error": record.raised,
    }


def _asked_for(verdict: Verdict | None) -> str | None:
    outcome = verdict.outcome if isinstance(verdict, Decided) else None
    return outcome.reason if isinstance(outcome, Retry) else None
