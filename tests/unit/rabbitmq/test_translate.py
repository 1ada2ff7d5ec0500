"""Every exception of aiormq becomes one of ours, in one clear sentence."""

from __future__ import annotations

import asyncio

import aiormq.exceptions as amqp
import pytest

from amqpflow.errors import (
    AmqpflowError,
    BrokerError,
    BrokerUnavailableError,
    PermissionDeniedError,
    UnroutableError,
)
from amqpflow.rabbitmq.translate import translate

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
    assert type(ours) is PermissionDeniedError
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
    assert type(translated(error)) is BrokerUnavailableError


def test_ours_and_what_is_not_the_broker_s_pass_through() -> None:
    for error in (UnroutableError("x"), ZeroDivisionError(), asyncio.CancelledError()):
        with pytest.raises(type(error)) as raised, translate():
            raise error
        assert raised.value is error


@pytest.mark.parametrize(
    ("said", "words", "hint"),
    [
        (
            "NOT_ALLOWED - number of channels opened for user 'app' has reached the maximum allowed user limit of (3)",
            "the user has no channels left, its limit is 3",
            "set_user_limits",
        ),
        (
            "NOT_ALLOWED - number of channels opened for user 'n@host' has reached the maximum allowed user limit of 3",
            "the user has no channels left, its limit is 3",
            "set_user_limits",
        ),
        (
            "NOT_ALLOWED - number of channels opened on node 'rabbit@h' has reached the maximum allowed limit of 9",
            "the node has no channels left, its limit is 9",
            "channel_max_per_node",
        ),
        (
            "NOT_ALLOWED - number of channels opened (10) has reached the negotiated channel_max (10)",
            "the connection has no channels left, its limit is 10",
            "channel_max in",
        ),
    ],
)
@pytest.mark.parametrize("kind", [amqp.ConnectionNotAllowed, amqp.ConnectionClosed])
def test_a_limit_of_channels_is_called_one(kind: type[Exception], said: str, words: str, hint: str) -> None:
    ours = translated(kind(said) if kind is amqp.ConnectionNotAllowed else kind(530, said))
    assert type(ours) is BrokerUnavailableError
    assert str(ours) == f"RabbitMQ closed the connection: {words}"
    assert hint in ours.hint
