"""A parked message -> the publish that brings it back to its work queue.

The copy goes through the retry exchange, whose keys are queue names, so that it reaches the queue it failed in and no
other. It is the message its handler saw: what would act on the broker again stays out and is kept in the record, and
the hop is a function of the parked copy alone, so that replaying that copy twice can be recognised.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from amqpflow.model import headers as h
from amqpflow.model.budget import fit
from amqpflow.model.message import Publish
from amqpflow.model.record import PastAttempt, history_table, hop_id
from amqpflow.model.routes import QueueRoutes

from .deaths import deaths_elsewhere
from .parked import ParkedMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRun:
    """What all messages of one replay have in common."""

    id: str
    at: int  #: ms since the epoch
    host: str
    version: str
    frame_max: int  #: bytes, 0 for no limit
    our_queues: Collection[str]  #: every queue of the topology
    keep_attempts: bool = False  #: go on counting where the message stopped, instead of from the first attempt


def replay_publish(parked: ParkedMessage, routes: QueueRoutes, run: ReplayRun, *, ordinal: int = 0) -> Publish | None:
    """
    The publish that replays a message, or None when its own headers leave no room for a record in a frame.

    Args:
        parked: the message; `parked.queue` is the queue of `routes`.
        routes: of the work queue.
        run: the replay.
        ordinal: how many messages of this run were equal to it in everything. It tells apart messages that have
            neither a message id nor a record, which are known by a hash of what they hold.
    """
    received = parked.delivery.properties
    bare = replace(received, headers=None, delivery_mode=2, expiration=None, user_id=None)
    fitted = fit(bare, _traveling(parked), _ours(parked, run, ordinal), run.frame_max)
    if fitted is None:
        return None
    return Publish(
        exchange=routes.retry_exchange, routing_key=routes.queue, properties=fitted, body=parked.delivery.body
    )


def _ours(parked: ParkedMessage, run: ReplayRun, ordinal: int) -> dict[str, Any]:
    record, count = parked.record, parked.replays + 1
    attempts = parked.attempts if run.keep_attempts else 0
    ours: dict[str, Any] = {
        h.HOP: hop_id(_root(parked, ordinal), count, attempts),
        h.QUEUE: parked.queue,
        h.REPLAY: {"id": run.id, "count": count, "at": run.at},
        h.HOST: run.host,
        h.VERSION: run.version,
    }
    if attempts:
        ours[h.ATTEMPT] = attempts
    if parked.routing_key is not None:
        ours[h.EXCHANGE], ours[h.ROUTING_KEY] = parked.exchange or "", parked.routing_key
    if original := _original(parked, run):
        ours[h.ORIGINAL] = original
    if history := _history(parked):
        ours[h.HISTORY] = history_table(history)
    if record is not None:
        kept = {
            h.FAILED_AT: record.failed_at,
            h.ERROR_TYPE: record.error_type,
            h.ERROR_MESSAGE: record.error_message,
            h.ERROR_STACK: record.error_stack,
            h.FINGERPRINT: record.fingerprint,
            h.FIRST_FAILED_AT: record.first_failed_at if run.keep_attempts else None,
        }
        ours |= {name: value for name, value in kept.items() if value is not None}
    return ours


def _root(parked: ParkedMessage, ordinal: int) -> str:
    root = (parked.record.root if parked.record else None) or parked.message_id
    if root:
        return root
    return parked.digest.hex() + (f"-{ordinal}" if ordinal else "")


def _original(parked: ParkedMessage, run: ReplayRun) -> dict[str, Any]:
    """What must not travel, for the consumer to show to the handler."""
    if parked.record is not None:
        return dict(parked.record.original)
    received = parked.delivery.properties
    kept = deaths_elsewhere(received.headers, run.our_queues)
    if "CC" in (headers := received.headers or {}):
        kept["CC"] = headers["CC"]
    expiration = received.expiration or (parked.death.original_expiration if parked.death else None)
    kept |= {
        name: value for name, value in (("expiration", expiration), ("user_id", received.user_id)) if value is not None
    }
    return kept


def _history(parked: ParkedMessage) -> tuple[PastAttempt, ...]:
    history = parked.record.history if parked.record else ()
    if parked.death is None:
        return history
    # of what RabbitMQ did itself nothing is left when x-death goes, so it becomes a line of the history
    return (*history, PastAttempt(at=parked.death.at, tier="parking", error_type=f"broker: {parked.death.reason}"))


def _traveling(parked: ParkedMessage) -> dict[str, Any]:
    return {
        name: value
        for name, value in (parked.delivery.properties.headers or {}).items()
        if name not in h.NEVER_TRAVELS and not name.startswith(h.PREFIX)
    }
