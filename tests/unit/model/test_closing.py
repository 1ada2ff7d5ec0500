"""What is said of the end of a channel or a connection."""

from __future__ import annotations

import errno
import os
from typing import Literal

import pytest

from amqpflow.model.closing import (
    closed_by_broker,
    missed_heartbeats,
    socket_closed,
    socket_failed,
)

FORCED = "CONNECTION_FORCED - "
TIMED_OUT = (
    "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 3000 ms. "
    "This timeout value can be configured, see consumers doc guide to learn more"
)


@pytest.mark.parametrize(
    ("what", "code", "text", "meaning"),
    [
        ("connection", 320, FORCED + "Closed via management plugin", "an operator closed the connection in the manage"),
        ("connection", 320, FORCED + "deploy of tonight", "an operator closed the connection"),
        (
            "connection",
            320,
            FORCED + "broker forced connection closure with reason 'shutdown'",
            "the RabbitMQ node was",
        ),
        (
            "connection",
            320,
            FORCED + "Node was put into maintenance mode",
            "the RabbitMQ node was put into maintenance",
        ),
        ("connection", 320, FORCED + "vhost 'shop' is deleted", "the virtual host was deleted or stopped"),
        ("connection", 320, FORCED + "vhost 'shop' is down", "the virtual host was deleted or stopped"),
        ("connection", 320, FORCED + "user 'shop' is deleted", "the user was deleted"),
        ("connection", 320, FORCED + "credential expired", "the token that it logged in with has expired"),
        (
            "connection",
            530,
            "NOT_ALLOWED - number of channels opened for user 'app' has reached the maximum allowed user limit of 1",
            "a limit of channels is reached",
        ),
        ("connection", 541, "INTERNAL_ERROR", "RabbitMQ closed the connection: 541 INTERNAL_ERROR"),
        ("channel", 404, "NOT_FOUND - no exchange 'x'", "RabbitMQ closed the channel: 404 NOT_FOUND - no exchange 'x'"),
        ("channel", 406, TIMED_OUT, "a message was held longer than the consumer timeout"),
    ],
)
def test_the_brokers_own_words_are_kept_with_their_meaning_before_them(
    what: Literal["channel", "connection"], code: int, text: str, meaning: str
) -> None:
    reason = closed_by_broker(what, code, text)
    assert str(reason).startswith(meaning)
    assert f"{code} {text}".split(". This")[0] in str(reason)
    assert (reason.code, reason.reply_text, reason.by_us, reason.silent) == (code, text, False, False)


def test_the_limit_of_a_consumer_timeout_is_read_from_the_brokers_text() -> None:
    reason = closed_by_broker("channel", 406, TIMED_OUT)
    assert reason.consumer_timeout_ms == 3000
    assert "doc guide" not in str(reason)
    assert closed_by_broker("channel", 406, "PRECONDITION_FAILED - unknown delivery tag 7").consumer_timeout_ms is None


def test_an_error_of_the_socket_is_said_by_its_name() -> None:
    reset = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    assert str(socket_failed(reset)) == "the socket failed: connection reset by peer (ECONNRESET)"
    assert str(socket_failed(OSError("no number"))) == "the socket failed: no number"
    assert str(socket_failed(TimeoutError())) == "the socket failed: TimeoutError"


def test_silence_is_what_missed_heartbeats_look_like() -> None:
    assert str(missed_heartbeats(10.0, 33.4)) == "missed heartbeats: nothing was received for 33s (heartbeat 10s)"
    assert all(each.silent for each in (socket_closed(), missed_heartbeats(1, 7), socket_failed(OSError())))
