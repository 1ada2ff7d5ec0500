"""Every exception of aiormq becomes one of ours, in one clear sentence."""

from __future__ import annotations

import asyncio
import ssl

import aiormq.exceptions as amqp
import pytest

from amqpflow.errors import (
    AmqpflowError,
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    PermissionDenied,
    TlsFailed,
    Unroutable,
    VirtualHostMissing,
)
from amqpflow.rabbitmq.translate import from_connecting, translate

WHERE = "amqp://guest:***@h:5672/v"


def translated(error: BaseException) -> AmqpflowError:
    with pytest.raises(AmqpflowError) as raised, translate():
        raise error
    assert raised.value.__cause__ is error
    return raised.value


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (amqp.ChannelNotFoundEntity("NOT_FOUND - no queue 'q' in vhost 'v'"), 404),
        (amqp.ChannelPreconditionFailed("PRECONDITION_FAILED - inequivalent arg 'x' for queue 'q'"), 406),
        (amqp.ChannelLockedResource("RESOURCE_LOCKED - cannot obtain exclusive access"), 405),
        (amqp.ConnectionClosed(541, "INTERNAL_ERROR"), 541),
    ],
)
def test_what_the_broker_refuses_keeps_its_words_and_code(error: Exception, code: int) -> None:
    ours = translated(error)
    assert type(ours) is BrokerError
    assert ours.code == code
    assert str(ours) in str(error.args)


def test_a_missing_permission_says_how_to_grant_it() -> None:
    ours = translated(amqp.ChannelAccessRefused("ACCESS_REFUSED - access to queue 'q' refused for user 'u'"))
    assert type(ours) is PermissionDenied
    assert "amqpflow permissions FILE" in ours.hint


@pytest.mark.parametrize(
    "error",
    [
        amqp.ChannelInvalidStateError("closed"),
        amqp.ConnectionClosed(320, "CONNECTION_FORCED - broker forced connection closure"),
        amqp.AMQPConnectionError("Server connection unexpectedly closed"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError(),
        RuntimeError("<Connection> closed"),
    ],
)
def test_a_lost_connection_is_said_to_be_lost(error: Exception) -> None:
    assert type(translated(error)) is BrokerUnavailable


def test_ours_and_what_is_not_the_broker_s_pass_through() -> None:
    for error in (Unroutable("x"), ZeroDivisionError(), asyncio.CancelledError()):
        with pytest.raises(type(error)) as raised, translate():
            raise error
        assert raised.value is error


def caused(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "ours", "words"),
    [
        (amqp.ProbableAuthenticationError("ACCESS_REFUSED"), AuthenticationFailed, "user or the password"),
        (amqp.AuthenticationError("EXTERNAL", ["PLAIN"]), AuthenticationFailed, "user or the password"),
        (amqp.ConnectionClosed(530, "NOT_ALLOWED - vhost v not found"), VirtualHostMissing, "no such virtual host"),
        (
            amqp.ConnectionClosed(530, "NOT_ALLOWED - access to vhost 'v' refused"),
            VirtualHostMissing,
            "no access to it",
        ),
        (amqp.InvalidFrameError("Expected Connection.OpenOk, got x"), VirtualHostMissing, "no such virtual host"),
        (amqp.ConnectionClosed(320, "CONNECTION_FORCED"), BrokerUnavailable, "closed the connection"),
        (amqp.IncompatibleProtocolError(), BrokerUnavailable, "does not speak AMQP"),
        (TimeoutError(), BrokerUnavailable, "no answer in time"),
        (ConnectionRefusedError(111, "Connect call failed"), BrokerUnavailable, "Connect call failed"),
        (caused(amqp.AMQPConnectionError(), ssl.SSLError(1, "WRONG_VERSION_NUMBER")), TlsFailed, "TLS failed"),
        (
            caused(amqp.AMQPConnectionError(), ssl.SSLCertVerificationError(1, "certificate verify failed")),
            TlsFailed,
            "certificate verify failed",
        ),
    ],
)
def test_why_a_connection_could_not_be_opened(error: BaseException, ours: type[AmqpflowError], words: str) -> None:
    found = from_connecting(error, WHERE)
    assert type(found) is ours
    assert words in str(found)
    assert str(found).startswith(WHERE)
    assert "\n" not in str(found)


def test_the_hint_fits_the_reason() -> None:
    assert "localhost" in from_connecting(amqp.ProbableAuthenticationError("x"), WHERE).hint
    assert from_connecting(amqp.ProbableAuthenticationError("x"), "amqp://app:***@h").hint == ""
    verify = caused(amqp.AMQPConnectionError(), ssl.SSLCertVerificationError(1, "certificate verify failed"))
    assert "--ca-file" in from_connecting(verify, WHERE).hint
    wrong = caused(amqp.AMQPConnectionError(), ssl.SSLError(1, "WRONG_VERSION_NUMBER"))
    assert "5671" in from_connecting(wrong, WHERE).hint


def test_a_chain_of_causes_that_bites_its_tail_comes_to_an_end() -> None:
    first, second = amqp.AMQPConnectionError(), amqp.AMQPConnectionError()
    first.__cause__, second.__cause__ = second, first
    assert type(from_connecting(first, WHERE)) is BrokerUnavailable
