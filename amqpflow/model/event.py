"""What happens in a consumer, as values for listeners: metrics, tracing, alerts, logs.

No event carries a body or a header. Times are of a monotonic clock, in seconds. `message.received` begins a delivery,
and exactly one of the events that `MessageSettled` covers ends it, unless the process dies before.

`error` is the exception itself, with its traceback. What its frames hold lives for as long as a listener keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event. Listeners subscribe by `name`; every kind has its own."""

    name: ClassVar[str] = ""


# -- messages


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEvent(Event):
    """Something that happened to one delivery of a message."""

    queue: str  #: the work queue
    message_id: str | None  #: as the producer set it
    correlation_id: str | None  #: as the producer set it
    attempt: int  #: which attempt this is, from 1
    hop: str  #: as `Message.hop`: equal on two copies of one attempt; "" on a first attempt without a message id
    delivery: int  #: equal in the events of one delivery, different from all others that are being handled


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived(MessageEvent):
    """A delivery is about to be given to its handler."""

    name: ClassVar[str] = "message.received"
    redelivered: bool  #: RabbitMQ's flag; says nothing about attempts
    waited: float  #: seconds since it arrived in this process


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHandled(MessageEvent):
    """The handler and its middlewares have ended; the settlement follows."""

    name: ClassVar[str] = "message.handled"
    outcome: str  #: ack, retry, pause, park, discard, error, undecodable or bad-result
    error_type: str | None  #: ValueError, httpx.ConnectError; None when nothing was raised
    error_message: str | None = None  #: its text, at most 1 KiB
    error_location: str | None = None  #: file and line of the innermost frame of the service's own code: service.py:10
    error: BaseException | None = field(default=None, repr=False, compare=False)  #: the exception; a group as raised
    duration: float  #: seconds in the handler and its middlewares, waits for a rate or a slot included


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSettled(MessageEvent):
    """A delivery has ended here: what acked, retried, parked, discarded, postponed and requeued have in common."""

    outcome: ClassVar[str] = ""
    duration: float  #: seconds since message.received


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAcked(MessageSettled):
    """The handler is done with the message."""

    name: ClassVar[str] = "message.acked"
    outcome: ClassVar[str] = "acked"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRetried(MessageSettled):
    """The attempt failed; a copy is in a retry queue, confirmed, and the delivery is acked. Native: it is rejected."""

    name: ClassVar[str] = "message.retried"
    outcome: ClassVar[str] = "retried"
    delay: float  #: seconds until it comes back
    retry_queue: str  #: where it waits; with native retry its work queue
    reason: str | None = None  #: free text of `Retry` or `Pause`
    error_type: str | None  #: of the last error; of a group of exceptions, of its first error
    error_message: str | None = None  #: its text, at most 1 KiB
    error_location: str | None = None  #: file and line of the innermost frame of the service's own code: service.py:10
    error: BaseException | None = field(default=None, repr=False, compare=False)  #: the exception; a group as raised


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageParked(MessageSettled):
    """The message is in the parking queue, confirmed, and the delivery is acked."""

    name: ClassVar[str] = "message.parked"
    outcome: ClassVar[str] = "parked"
    reason: str  #: one of the failure record's reasons: exhausted, gave-up, permanent, parked, ...
    detail: str | None  #: free text of a rule or of `Park`
    error_type: str | None  #: of the last error; of a group of exceptions, of its first error
    error_message: str | None = None  #: its text, at most 1 KiB
    error_location: str | None = None  #: file and line of the innermost frame of the service's own code: service.py:10
    error: BaseException | None = field(default=None, repr=False, compare=False)  #: the exception; a group as raised


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDiscarded(MessageSettled):
    """The handler dropped the message."""

    name: ClassVar[str] = "message.discarded"
    outcome: ClassVar[str] = "discarded"
    reason: str  #: free text of `Discard`


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePostponed(MessageSettled):
    """The message came back before its `Retry(after=...)` was over, and went to a retry queue again, uncounted."""

    name: ClassVar[str] = "message.postponed"
    outcome: ClassVar[str] = "postponed"
    delay: float  #: seconds in this retry queue
    retry_queue: str  #: where it waits


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRequeued(MessageSettled):
    """The broker has the delivery back and delivers it again: requeued, or its channel ended before the settlement."""

    name: ClassVar[str] = "message.requeued"
    outcome: ClassVar[str] = "requeued"
    reason: str  #: why


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHeld(MessageEvent):
    """The delivery cannot be settled now: it stays unacked, its publish is tried again, and others are handled."""

    name: ClassVar[str] = "message.held"
    reason: str  #: why


# -- consumers


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerEvent(Event):
    """Something that happened to the consumer of one work queue."""

    queue: str  #: the work queue


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStarted(ConsumerEvent):
    """The queue is being consumed, for the first time or again on a new channel."""

    name: ClassVar[str] = "consumer.started"
    prefetch: int  #: with which it starts
    single_active: bool = False  #: RabbitMQ gives the queue to one of its consumers at a time, perhaps to another one


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPaused(ConsumerEvent):
    """The queue is not consumed: the prefetch is full of messages that cannot be settled, or a breaker is open."""

    name: ClassVar[str] = "consumer.paused"
    reason: str  #: why


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerResumed(ConsumerEvent):
    """The queue is consumed again after a pause."""

    name: ClassVar[str] = "consumer.resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStopped(ConsumerEvent):
    """The queue is no longer consumed on this channel."""

    name: ClassVar[str] = "consumer.stopped"
    reason: str  #: why: stopped, or what the broker said; for a consumer timeout with handler, message and times


# -- breakers


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOpened(ConsumerEvent):
    """Consuming stops for a while: too many failures, a named error, or a handler's `Pause`."""

    name: ClassVar[str] = "breaker.opened"
    reason: str  #: what opened it
    open_for: float  #: seconds until a single message is tried


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerHalfOpen(ConsumerEvent):
    """A single message is tried."""

    name: ClassVar[str] = "breaker.half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerClosed(ConsumerEvent):
    """The message that was tried did not fail: the queue is consumed as before."""

    name: ClassVar[str] = "breaker.closed"
    open_for: float  #: seconds since it opened first


# -- connections


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEvent(Event):
    """Something that happened to a connection to the broker."""

    address: str  #: without the password
    purpose: str  #: consumer, retries (what is published for retries and parking), or publisher (what handlers publish)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLost(ConnectionEvent):
    """A connection was lost. Unacked messages are delivered again."""

    name: ClassVar[str] = "connection.lost"
    reason: str  #: what the broker or the socket said: closed by an operator, missed heartbeats, reset by peer, ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRecovered(ConnectionEvent):
    """A new connection replaces the lost one."""

    name: ClassVar[str] = "connection.recovered"
    down_for: float  #: seconds since the old one was lost


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionBlocked(ConnectionEvent):
    """The broker blocks publishes: a memory or disk alarm. Acks go through, retries and parking wait."""

    name: ClassVar[str] = "connection.blocked"
    reason: str  #: the broker's


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionUnblocked(ConnectionEvent):
    """The broker reports the end of the alarm. When a blocked connection ends, `connection.lost` is emitted instead,
    and the next connection is blocked if the alarm lasts.
    """

    name: ClassVar[str] = "connection.unblocked"


#: every kind by its name
EVENTS: dict[str, type[Event]] = {
    kind.name: kind
    for kind in tuple(globals().values())
    if isinstance(kind, type) and issubclass(kind, Event) and kind.__dict__.get("name")
}

#: names until 1.0, and what each is called now
RENAMED = {"message.given_back": "message.requeued"}
