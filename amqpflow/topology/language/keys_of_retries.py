"""Keys of retry policies."""

from __future__ import annotations

from .types import MAX_DELAY_MS, Choice, Duration, Integer, Key, ListOf, Number, Percent, Record, ScalarOr, Text

MOST_RETRIES = 1000

DELAY = Record(
    "delay",
    (
        Key("delay", Duration(), "How long the message waits.", required=True, example="10s"),
        Key("times", Integer(1, MOST_RETRIES), "How often in a row.", default="1", example=6),
    ),
)
_DELAYS = Key(
    "delays",
    ListOf(ScalarOr(Duration(), DELAY)),
    "How long a message waits before each retry, shortest first; after the last one it is parked. An empty list "
    "parks the first failure. Each different delay becomes a queue; its name carries the delay.",
    example=["5s", {"delay": "30s", "times": 3}, "5m"],
)
BACKOFF = Record(
    "backoff",
    (
        Key("initial", Duration(), "Wait before the first retry.", required=True, example="10s"),
        Key(
            "multiplier",
            Number(1, 1000),
            "Each wait is this many times the one before, rounded to whole milliseconds.",
            default="2",
            example=4,
        ),
        Key(
            "max",
            Duration(),
            "No wait is longer.",
            default=f"ten years, {MAX_DELAY_MS} ms, RabbitMQ's longest",
            example="2h",
        ),
        Key("retries", Integer(1, MOST_RETRIES), "How many retries there are.", required=True, example=6),
    ),
)
_BACKOFF = Key(
    "backoff",
    BACKOFF,
    "A growing schedule; instead of delays.",
    example={"initial": "10s", "multiplier": 4, "max": "2h", "retries": 6},
)
RULE = Record(
    "on",
    (
        Key(
            "errors",
            ListOf(Text(word="exception name"), at_least=1),
            "Exception classes, as ValueError or httpx.ConnectError. A name matches the class or any base of it.",
            required=True,
            example=["TimeoutError", "httpx.ConnectError"],
        ),
        _DELAYS,
        _BACKOFF,
        Key(
            "park",
            Text(word="text"),
            "Park these at once, with this text as the detail of the failure record.",
            example="invalid",
        ),
    ),
)
NATIVE_DELAY = Record(
    "native delay",
    (
        Key(
            "min",
            Duration(),
            "Wait before the first retry; the n-th waits n times as long.",
            required=True,
            example="1s",
        ),
        Key("max", Duration(), "No wait is longer.", required=True, example="30s"),
    ),
)
RETRY_POLICY = Record(
    "retry policy",
    (
        Key(
            "engine",
            Choice(("tiers", "native")),
            "tiers: retry queues, on every RabbitMQ. native: the delayed retry of quorum queues, RabbitMQ 4.3 and "
            "later; takes only delay, retries and rules that park.",
            default="tiers",
            example="tiers",
        ),
        _DELAYS,
        _BACKOFF,
        Key(
            "give_up_after",
            Duration(),
            "A failed message is parked now if its next delay would end later than this after its first failure.",
            default="no limit",
            example="24h",
        ),
        Key(
            "jitter",
            Percent(50),
            "Spreads messages that failed together: each delay becomes four queues from (1 - jitter) to 1 times "
            "the delay, and the consumer picks one at random.",
            default="0%",
            example="10%",
        ),
        Key(
            "on",
            ListOf(RULE),
            "Schedules of their own for some errors. The first rule that matches wins; the schedule it chooses is "
            "read at the number of attempts made in all. Each rule has one of delays, backoff and park.",
            default="no rules",
            example=[{"errors": ["ValueError"], "park": "invalid"}],
        ),
        Key(
            "delay",
            NATIVE_DELAY,
            "engine: native only: wait min times the attempt, at most max.",
            example={"min": "1s", "max": "30s"},
        ),
        Key("retries", Integer(1, MOST_RETRIES), "engine: native only: how many retries there are.", example=8),
    ),
)
