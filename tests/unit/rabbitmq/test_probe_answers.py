"""RabbitMQ's objections to a redeclare, as 3.10.8, 4.0.5 and 4.3.6 word them (fact 7.1)."""

from __future__ import annotations

from typing import Any

import pytest

from amqpflow.model.resources import Queue
from amqpflow.rabbitmq.probe import _corrected, _parse

START = "PRECONDITION_FAILED - inequivalent arg"


@pytest.mark.parametrize(
    ("text", "key", "current"),
    [
        (
            f"{START} 'x-message-ttl' for queue 'q' in vhost 'V': received '2000' but current is '1000'",
            "x-message-ttl",
            "1000",
        ),
        (
            f"{START} 'x-message-ttl' for queue 'q' in vhost 'V': received none but current is the value '1000' of "
            "type 'signedint'",
            "x-message-ttl",
            "1000",
        ),
        (
            f"{START} 'x-message-ttl' for queue 'q' in vhost 'V': received the value '9999' of type 'signedint' but "
            "current is none",
            "x-message-ttl",
            None,
        ),
        (f"{START} 'durable' for queue 'q' in vhost 'V': received 'false' but current is 'true'", "durable", "true"),
        (f"{START} 'type' for exchange 'e' in vhost 'V': received 'topic' but current is 'direct'", "type", "direct"),
        (
            f"{START} 'x-queue-type' for queue 'q' in vhost 'V': received the value 'quorum' of type 'longstr' but "
            "current is none",
            "x-queue-type",
            None,
        ),
        (f"{START} 'x-overflow' for queue 'it's' in vhost 'V': received 'a' but current is ''", "x-overflow", ""),
    ],
)
def test_answers_are_read(text: str, key: str, current: str | None) -> None:
    found = _parse(text)
    assert found is not None
    assert (found.key, found.current) == (key, current)


def test_an_answer_cut_short_is_not_guessed_at() -> None:
    assert _parse(f"{START} 'x-message-ttl' for queue '{'q' * 200}' in vhost 'V': received '20") is None


@pytest.mark.parametrize(
    ("ours", "said", "expected"),
    [
        (5, "received '5' but current is '7'", 7),
        (5, "received '5' but current is '5'", "5"),
        ("5", "received '5' but current is '5'", 5),
        ("a", "received 'a' but current is 'b'", "b"),
        (None, "received none but current is the value '7' of type 'long'", 7),
        (None, "received none but current is the value '7' of type 'longstr'", "7"),
        (None, "received none but current is the value 'true' of type 'bool'", True),
        (5, "received the value '5' of type 'byte' but current is none", None),
    ],
)
def test_values_are_read_with_their_type(ours: Any, said: str, expected: Any) -> None:
    found = _parse(f"{START} 'x-thing' for queue 'q' in vhost 'V': {said}")
    assert found is not None
    queue = Queue(name="q", arguments={} if ours is None else {"x-thing": ours})
    corrected = _corrected(queue, found, ("durable",)).arguments.get("x-thing")
    assert (corrected, type(corrected)) == (expected, type(expected))
