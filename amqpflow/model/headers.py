"""The headers amqpflow writes, and those that never travel with a copy. The contract is docs/protocol.md."""

from __future__ import annotations

from enum import StrEnum

PREFIX = "x-amqpflow-"

ATTEMPT = PREFIX + "attempt"  #: attempts already made, int
HOP = PREFIX + "hop"  #: ROOT/REPLAY/ATTEMPT, equal on two copies of one settlement
QUEUE = PREFIX + "queue"  #: the work queue it failed in; our headers count only there
EXCHANGE = PREFIX + "exchange"  #: as first published
ROUTING_KEY = PREFIX + "routing-key"  #: as first published
ORIGINAL = PREFIX + "original"  #: table of what does not travel
FIRST_FAILED_AT = PREFIX + "first-failed-at"  #: ms since the epoch
FAILED_AT = PREFIX + "failed-at"  #: ms since the epoch
DUE_AT = PREFIX + "due-at"  #: ms since the epoch
LOST = PREFIX + "lost"  #: deliveries that ended without an answer before this copy, int
REASON = PREFIX + "reason"  #: a ParkReason
REASON_DETAIL = PREFIX + "reason-detail"
ERROR_TYPE = PREFIX + "error-type"
ERROR_MESSAGE = PREFIX + "error-message"
ERROR_LOCATION = PREFIX + "error-location"  #: service.py:10, the innermost line of the user's code
ERROR_STACK = PREFIX + "error-stack"
FINGERPRINT = PREFIX + "fingerprint"
HISTORY = PREFIX + "history"
HOST = PREFIX + "host"
VERSION = PREFIX + "version"
REPLAY = PREFIX + "replay"  #: table: id, count, at


class ParkReason(StrEnum):
    """Why a message is in a parking queue. Closed: other languages match on it."""

    EXHAUSTED = "exhausted"  #: no attempt left in the schedule
    GAVE_UP = "gave-up"  #: give_up_after would be passed
    PERMANENT = "permanent"  #: a rule parks this error at once
    PARKED = "parked"  #: the handler returned or raised Park
    UNDECODABLE = "undecodable"  #: the body could not be decoded
    BAD_RESULT = "bad-result"  #: the handler returned something else than an outcome
    NO_ROUTE = "no-route"  #: all its retry queues were missing
    CRASHED = "crashed"  #: `crash_limit` deliveries ended without an answer: the message killed its consumers
    BROKER = "broker"  #: RabbitMQ itself gave up on it


BROKER_OWNED = frozenset(
    {
        "x-death",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-first-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
        "x-last-death-exchange",
    }
)
"""Written by RabbitMQ when it dead-letters. 3.x trusts what a client sends back in them (facts 1.6, 2.6, 2.7)."""

COUNTERS = frozenset({"x-delivery-count", "x-acquired-count", "x-stream-offset"})
"""Per-delivery numbers of the queue that delivers; meaningless on a copy (facts 1.8, 3.6)."""

ROUTING = frozenset({"CC", "BCC"})
"""Routing keys to which the broker sends a message as well; it removes BCC before delivery (fact 9.10)."""

SCHEDULING = frozenset({"x-opt-delivery-time", "x-opt-delivery-delay"})
"""How long a queue that supports delays hides a message (fact 8.14): a retry beyond its TTL, and a parked message."""

NEVER_TRAVELS = BROKER_OWNED | COUNTERS | ROUTING | SCHEDULING
"""Header names that a copy of ours never carries (facts 1.3, 2.6, 8.14, 9.10)."""

KEPT = BROKER_OWNED | SCHEDULING | {"CC"}
"""Of those, what the handler is shown on every attempt as its producer set it: it is kept in `ORIGINAL`."""
