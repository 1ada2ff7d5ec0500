"""Tell what became of deliveries: count it, and make the events that somebody listens to."""

from __future__ import annotations

from collections import Counter
from typing import Any

from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import Acknowledge, LeaveToBroker, Reject, Settlement, ToParking, ToTier
from amqpflow.delivery.verdict import BadResult, CannotDecode, Decided, Failed, Verdict
from amqpflow.model import event as e
from amqpflow.model.event import MessageAcked, MessageHandled, MessageReceived
from amqpflow.model.record import hop_id

from .events import Events
from .settler import GivenBack


class Report:
    """What a consumer's listeners learn of its deliveries. `totals` counts by outcome."""

    def __init__(self, events: Events, totals: Counter[str]) -> None:
        self._events = events
        self._listeners = events.listeners
        self._totals = totals

    def received(self, incoming: Incoming, waited: float) -> None:
        """A handler is about to get it."""
        self._totals["received"] += 1
        if MessageReceived in self._listeners:
            redelivered = incoming.delivery.redelivered
            self._events.emit(e.MessageReceived(**_about(incoming), redelivered=redelivered, waited=waited))

    def handled(self, incoming: Incoming, verdict: Verdict, duration: float) -> None:
        """The handler has ended."""
        if MessageHandled in self._listeners:
            outcome, error_type = _outcome(verdict)
            self._events.emit(
                e.MessageHandled(**_about(incoming), outcome=outcome, error_type=error_type, duration=duration)
            )

    def ended(
        self, incoming: Incoming, settlement: Settlement | GivenBack, duration: float, verdict: Verdict | None
    ) -> None:
        """It is settled, or the broker's again. Without a verdict its handler was not called."""
        if type(settlement) is Acknowledge and settlement.discarded is None and MessageAcked not in self._listeners:
            self._totals["acked"] += 1  # nearly every message
            return
        kind = _kind(settlement, verdict)
        self._totals[kind.outcome] += 1
        if not self._events.wanted(kind):
            return
        about: dict[str, Any] = {**_about(incoming), "duration": duration}
        error_type = _outcome(verdict)[1] if verdict is not None else None
        match settlement:
            case Acknowledge(discarded=reason):
                if reason is not None:
                    about["reason"] = reason
            case ToTier(tier=tier):
                about |= {"delay": tier.delay_ms / 1000, "retry_queue": tier.queue}
                if verdict is not None:
                    about["error_type"] = error_type
            case Reject(delay_ms=delay_ms):
                about |= {"delay": delay_ms / 1000, "retry_queue": incoming.delivery.queue, "error_type": error_type}
            case ToParking(reason=why, detail=detail):
                about |= {"reason": why.value, "detail": detail, "error_type": error_type}
            case LeaveToBroker(why=why):
                about |= {"reason": "by the broker", "detail": why, "error_type": error_type}
            case GivenBack(why=why):
                about["reason"] = why
        self._events.emit(kind(**about))


def _kind(settlement: Settlement | GivenBack, verdict: Verdict | None) -> type[e.MessageSettled]:
    match settlement:
        case Acknowledge(discarded=None):
            return e.MessageAcked
        case Acknowledge():
            return e.MessageDiscarded
        case ToTier():
            return e.MessagePostponed if verdict is None else e.MessageRetried
        case Reject():
            return e.MessageRetried
        case GivenBack():
            return e.MessageGivenBack
        case _:
            return e.MessageParked


def _about(incoming: Incoming) -> dict[str, Any]:
    delivery, record, root = incoming.delivery, incoming.record, incoming.message_id
    return {
        "queue": delivery.queue,
        "message_id": root,
        "correlation_id": incoming.correlation_id,
        "attempt": incoming.attempts_made + 1,
        "hop": (record.hop if record else None) or (hop_id(root, 0, 0) if root else ""),
        "delivery": id(incoming),
    }


def _outcome(verdict: Verdict) -> tuple[str, str | None]:
    match verdict:
        case Decided(outcome=outcome, error=error):
            return type(outcome).__name__.lower(), error.type if error else None
        case Failed(error=error):
            return "error", error.type
        case CannotDecode(error=error):
            return "undecodable", error.type
        case BadResult():
            return "bad-result", None
