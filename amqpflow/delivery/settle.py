"""Decide how a delivery is settled: one function from values to a value.

A settlement is carried out as publish, confirm, ack, in that order. When the publish is returned the settler asks
again with that tier among the missing; a delivery is never acked for a publish that was not confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from amqpflow.model.budget import fit_into_frame
from amqpflow.model.clip import MESSAGE_MAX, NAME_MAX, STACK_MAX, clip, clip_start
from amqpflow.model.fast_dataclass import fast_init
from amqpflow.model.headers import ParkReason
from amqpflow.model.message import Publish
from amqpflow.model.outcome import Ack, Discard, Park, Retry
from amqpflow.model.record import FailureRecord, PastAttempt, hop_id
from amqpflow.model.routes import NativeRetry, QueueRoutes, RetryTier

from .incoming import Incoming
from .schedule import next_longer, rule_for, step_tier, tier_for_delay
from .verdict import BadResult, CannotDecode, Crashed, Decided, ErrorRecord, Failed, Verdict

MOST_ROUNDS = 10_000
"""
How often a message may go round the longest retry queue for one `Retry(after=...)`: what is asked for beyond that is
shortened to it. Any publisher can write our headers, and must not make a message circulate for ever.
"""


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """The inputs of a decision beside the message: time, chance and identity."""

    routes: QueueRoutes
    now: int  #: ms since the epoch
    choice: float  #: from 0 up to but not including 1, picks a jittered tier
    new_root: str  #: the hop's root for a message without a message id
    frame_max: int  #: bytes, 0 for no limit
    host: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """The message is done with; `discarded` says why when it was dropped."""

    discarded: str | None = None


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class ToTier:
    """Publish to a retry queue, await the confirm, ack."""

    publish: Publish
    tier: RetryTier
    attempt: int  #: attempts made when it went there
    due_at: int  #: ms since the epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """basic.reject with requeue: a native queue counts it and holds the message for its delay."""

    attempt: int  #: attempts made with this one
    delay_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToParking:
    """Publish to the parking queue, await the confirm, ack."""

    publish: Publish
    reason: ParkReason
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveToBroker:
    """No copy can be made: the broker dead-letters the message itself where that is safe, else it stays."""

    why: str


Settlement = Acknowledge | ToTier | Reject | ToParking | LeaveToBroker


def decide(
    incoming: Incoming, verdict: Verdict, at: Circumstances, *, missing: frozenset[str] = frozenset()
) -> Settlement:
    """Decide what to do about a delivery. `missing`: retry queues that returned or refused its publish."""
    match verdict:
        case Failed(error=error, matches=matches):
            rule = rule_for(at.routes, matches)
            if rule is not None and rule.park is not None:
                return _park(incoming, at, ParkReason.PERMANENT, rule.park, error)
            if at.routes.native is not None:
                return _reject(incoming, at, at.routes.native, error)
            steps = at.routes.steps if rule is None or rule.steps is None else rule.steps
            return _retry(incoming, at, step_tier(steps, incoming.attempts_made, at.choice), error, missing)
        case Decided(outcome=Ack()):
            return Acknowledge()
        case Decided(outcome=Discard() as outcome):
            return Acknowledge(discarded=outcome.reason or "")
        case Decided(outcome=Park() as outcome, error=error):
            return _park(incoming, at, ParkReason.PARKED, outcome.reason, error)
        case Decided(outcome=Retry() as outcome, error=error):
            detail = outcome.reason if error is not None else None  # else it is the text of the error
            error = error or ErrorRecord(type=type(outcome).__name__, message=outcome.reason or "")
            if at.routes.native is not None:
                return _reject(incoming, at, at.routes.native, error, detail)
            if outcome.after_ms is None or incoming.attempts_made >= len(at.routes.steps):
                tier = step_tier(at.routes.steps, incoming.attempts_made, at.choice)
            else:
                tier = tier_for_delay(at.routes.tiers, outcome.after_ms)
            return _retry(incoming, at, tier, error, missing, wanted_ms=outcome.after_ms, detail=detail)
        case Decided():
            return _park(incoming, at, ParkReason.BAD_RESULT, repr(verdict.outcome), verdict.error)
        case CannotDecode(error=error):
            return _park(incoming, at, ParkReason.UNDECODABLE, error.message, error)
        case BadResult(detail=detail, location=location):
            no_error = ErrorRecord(type="", location=location)
            return _park(incoming, at, ParkReason.BAD_RESULT, detail, no_error)
        case Crashed(deliveries=lost):
            return _park(
                incoming,
                at,
                ParkReason.CRASHED,
                f"{lost} deliveries ended without an ack: the consumer crashed or lost its connection",
                None,
            )
        case _:
            assert_never(verdict)


def decide_early(incoming: Incoming, at: Circumstances, *, missing: frozenset[str] = frozenset()) -> Settlement | None:
    """Send a message to a retry queue again that is back before it is due; None when its handler should see it.

    Only `Retry(after=...)` past the longest tier makes such messages. Its wait is measured against the wait that was
    asked for and not against the clock alone, so that two hosts whose clocks differ do not hold up ordinary retries.
    The headers may be forged: a time that no settlement of ours writes is not waited for, and the handler is called.
    """
    record, tiers = incoming.record, at.routes.tiers
    if record is None or record.due_at is None or record.failed_at is None or record.root is None or not tiers:
        return None
    if record.due_at <= at.now or not _may_be_ours(record.due_at, record.failed_at, record.first_failed_at, at):
        return None
    wanted = tier_for_delay(tiers, record.due_at - at.now)
    tier = next_longer(tiers, wanted, missing) if wanted else None
    if tier is None:
        return None
    # our headers as they were, of what was understood of them: what came with the message may be forged
    same = replace(
        record, exchange=incoming.exchange, routing_key=incoming.routing_key, reason=None, reason_detail=None
    )
    publish = _copy(incoming, at, at.routes.retry_exchange, tier.queue, same)
    if isinstance(publish, LeaveToBroker):
        return None
    return ToTier(publish=publish, tier=tier, attempt=incoming.attempts_made, due_at=record.due_at)


def _may_be_ours(due_at: int, failed_at: int, first_failed_at: int | None, at: Circumstances) -> bool:
    """Return whether a `Retry(after=...)` past the longest tier could have asked for this."""
    # it has waited in a retry queue since: else a clock is wrong by more than that, or the time is made up
    if failed_at > at.now:
        return False
    if not at.routes.tiers[-1].delay_ms < due_at - failed_at <= _longest_wait(at):
        return False
    limit = at.routes.give_up_after_ms
    return limit is None or due_at <= min(first_failed_at or failed_at, failed_at) + limit


def _longest_wait(at: Circumstances) -> int:
    return MOST_ROUNDS * at.routes.tiers[-1].delay_ms


def set_back(incoming: Incoming, at: Circumstances, *, lost: int) -> Publish | None:
    """Return a copy of a message for the end of its work queue, or None when it cannot be copied.

    It is as it was, without another attempt; but RabbitMQ counts its deliveries from 0.
    """
    before, delivery = incoming.record, incoming.delivery
    if before is not None:
        record = replace(before, exchange=incoming.exchange, routing_key=incoming.routing_key, lost=lost)
        record = replace(record, reason=None, reason_detail=None)
    else:
        record = FailureRecord(
            queue=delivery.queue,
            exchange=delivery.exchange,
            routing_key=delivery.routing_key,
            lost=lost,
            host=at.host,
            version=at.version,
        )
    if record.root is None:
        root = incoming.message_id or at.new_root
        replays = record.replay.count if record.replay else 0
        record = replace(record, root=root, hop=hop_id(root, replays, record.attempts))
    publish = _copy(incoming, at, at.routes.retry_exchange, delivery.queue, record)
    return None if isinstance(publish, LeaveToBroker) else publish


def _reject(
    incoming: Incoming, at: Circumstances, native: NativeRetry, error: ErrorRecord, detail: str | None = None
) -> Settlement:
    """Leave the retry to the broker while there is one left; the last attempt is parked here, with its record."""
    if incoming.attempts_made >= native.retries:
        return _park(incoming, at, ParkReason.EXHAUSTED, detail, error)
    # what crashed counted too, and the delay goes by the broker's count alone
    attempt = incoming.deliveries_lost + 1
    return Reject(attempt=incoming.attempts_made + 1, delay_ms=native.delay_ms(attempt))


def _retry(
    incoming: Incoming,
    at: Circumstances,
    wanted: RetryTier | None,
    error: ErrorRecord,
    missing: frozenset[str],
    *,
    wanted_ms: int | None = None,
    detail: str | None = None,
) -> Settlement:
    if wanted is None:
        return _park(incoming, at, ParkReason.EXHAUSTED, detail, error)
    limit = at.routes.give_up_after_ms
    if wanted_ms is not None:
        wanted_ms = min(wanted_ms, _longest_wait(at))
    wait = wanted.delay_ms if wanted_ms is None else max(wanted_ms, wanted.delay_ms)
    if limit is not None and at.now + wait > _first_failed_at(incoming, at) + limit:
        return _park(incoming, at, ParkReason.GAVE_UP, detail, error)
    tier = next_longer(at.routes.tiers, wanted, missing) if missing else wanted
    if tier is None:
        return _park(
            incoming, at, ParkReason.NO_ROUTE, f"no retry queue accepts it: {', '.join(sorted(missing))}", error
        )
    due_at = at.now + max(tier.delay_ms, wanted_ms or 0)
    record = _record(incoming, at, error, tier.queue, due_at=due_at)
    publish = _copy(incoming, at, at.routes.retry_exchange, tier.queue, record)
    if isinstance(publish, LeaveToBroker):
        return publish
    return ToTier(publish=publish, tier=tier, attempt=incoming.attempts_made + 1, due_at=due_at)


def _park(
    incoming: Incoming, at: Circumstances, reason: ParkReason, detail: str | None, error: ErrorRecord | None
) -> Settlement:
    record = _record(incoming, at, error, "parking", reason=reason, detail=detail)
    publish = _copy(incoming, at, at.routes.parking_exchange, at.routes.parking_queue, record)
    if isinstance(publish, LeaveToBroker):
        return publish
    return ToParking(publish=publish, reason=reason, detail=detail)


def _record(
    incoming: Incoming,
    at: Circumstances,
    error: ErrorRecord | None,
    sent_to: str,
    *,
    due_at: int | None = None,
    reason: ParkReason | None = None,
    detail: str | None = None,
) -> FailureRecord:
    before, delivery = incoming.record, incoming.delivery
    recorded = before.attempts if before else 0
    made = recorded + (incoming.deliveries_lost if incoming.native else 0)
    root = (before.root if before else None) or incoming.message_id or at.new_root
    replay = before.replay if before else None
    failure = PastAttempt(at=at.now, tier=sent_to, error_type=error.type if error else "")
    return FailureRecord(
        queue=delivery.queue,
        attempts=made + 1,
        root=root,
        # not the broker's count, which a crash between publish and ack would raise: the copy must have the same id
        hop=hop_id(root, replay.count if replay else 0, recorded + 1),
        exchange=incoming.exchange if before else delivery.exchange,
        routing_key=incoming.routing_key if before else delivery.routing_key,
        # the beginning of a native retry is not recorded
        first_failed_at=_first_failed_at(incoming, at) if before is not None or made == 0 else None,
        failed_at=at.now,
        due_at=due_at,
        reason=reason,
        reason_detail=clip(detail, MESSAGE_MAX) if detail else None,
        error_type=clip(error.type, NAME_MAX) if error else None,
        error_message=clip(error.message, MESSAGE_MAX) if error else None,
        error_location=clip_start(error.location, NAME_MAX) if error and error.location else None,
        error_stack=clip_start(error.stack, STACK_MAX) if error and error.stack else None,
        fingerprint=error.fingerprint if error else None,
        history=(*before.history, failure) if before else (failure,),
        replay=replay,
        host=at.host,
        version=at.version,
    )


def _first_failed_at(incoming: Incoming, at: Circumstances) -> int:
    recorded = incoming.record.first_failed_at if incoming.record else None
    # one that is to come would put off giving up
    return min(recorded, at.now) if recorded else at.now


def _copy(
    incoming: Incoming, at: Circumstances, exchange: str, routing_key: str, record: FailureRecord
) -> Publish | LeaveToBroker:
    """Copy the message, property by property: persistent, and without what the broker would act on twice."""
    header, body = incoming.delivery.header, incoming.delivery.body
    try:
        if original := incoming.original:
            record = replace(record, original=original)
        theirs = incoming.encoded_traveling_headers
        table = fit_into_frame(theirs, record, others=header.size_without_headers, frame_max=at.frame_max)
        if table is None:
            return LeaveToBroker(why=f"the headers of {incoming.message_id!r} leave no room for a record")
        payload = header.copy(table, len(body))
    except (TypeError, ValueError) as error:
        # they are not whole, or what is kept of them would be one deeper in our record than tables may be nested
        return LeaveToBroker(why=f"the headers of {incoming.message_id!r} cannot be copied: {error}")
    return Publish(exchange=exchange, routing_key=routing_key, header=payload, body=body, identity=record.hop or "")
