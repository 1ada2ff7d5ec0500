"""Translate aio-pika's and aiormq's exceptions to amqpflow's, each one clear sentence without a password."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

import aiormq.exceptions as amqp

from amqpflow.errors import AmqpflowError, BrokerError, BrokerUnavailableError, PermissionDeniedError

_TRANSPORT = (OSError, EOFError, asyncio.IncompleteReadError, asyncio.TimeoutError, RuntimeError)


@contextmanager
def translate() -> Iterator[None]:
    """Translate errors of calls on an open connection or channel."""
    try:
        yield
    except AmqpflowError:
        raise
    except (amqp.AMQPError, *_TRANSPORT) as error:
        raise from_amqp(error) from error
    except Exception as error:
        # aiormq throws it into its tasks when the peer closed the socket without a reason
        if type(error) is Exception:
            raise BrokerUnavailableError("the connection to the broker was lost") from error
        raise


def from_amqp(error: BaseException) -> AmqpflowError:
    """Return the AmqpflowError for what went wrong on an open connection.

    Match ACCESS_REFUSED, not the wording, which differs between releases (fact 7.5).
    """
    text = error_text(error)
    code = next((arg for arg in error.args if isinstance(arg, int)), 0)
    if not code and (found := re.match(r"([A-Z_]{6,})", text)):
        code = _CODES.get(found[1], 0)
    if isinstance(error, amqp.ChannelAccessRefused) or "ACCESS_REFUSED" in text:
        return PermissionDeniedError(
            text, hint="`amqpflow permissions FILE` prints what each kind of user needs, and the lines that grant it"
        )
    if isinstance(error, amqp.AMQPChannelError) and not isinstance(error, amqp.ChannelInvalidStateError):
        return BrokerError(text, code=code)
    if found := _CHANNELS.search(text):
        whose = "user" if found["user"] else "node" if found["node"] else "connection"
        return BrokerUnavailableError(
            f"RabbitMQ closed the connection: the {whose} has no channels left, its limit is {found['limit']}",
            hint=_CHANNEL_LIMITS[whose],
        )
    if isinstance(error, amqp.ConnectionClosed) and code not in (0, 320):
        return BrokerError(text, code=code)
    return BrokerUnavailableError(f"the connection to the broker was lost: {text}")


_CHANNELS = re.compile(
    r"number of channels opened (?:for (?P<user>user) '.*'|on (?P<node>node) '.*'|\(\d+\)) has reached the "
    r"(?:maximum allowed (?:user )?limit of|negotiated channel_max) \(?(?P<limit>\d+)"
)  # RabbitMQ 4.0 names its node as the user
_CHANNEL_LIMITS = {
    "user": "rabbitmqctl set_user_limits USER '{\"max-channels\": N}'; a consumer needs one channel for each handler "
    "and two more",
    "node": "channel_max_per_node in rabbitmq.conf, or close connections that are not needed",
    "connection": "channel_max in rabbitmq.conf; a consumer needs one channel for each handler",
}

_CODES = {"NOT_FOUND": 404, "PRECONDITION_FAILED": 406, "RESOURCE_LOCKED": 405, "ACCESS_REFUSED": 403}


def error_text(error: BaseException) -> str:
    """Return the words of an error, or of what caused it; else the name of its class."""
    for each in chain_of(error):
        words = [arg for arg in each.args if isinstance(arg, str) and arg]
        if words:
            return words[-1]
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return type(error).__name__


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what caused it; aiormq makes circular chains."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and not any(current is each for each in seen):
        yield current
        seen.append(current)
        inner = next((arg for arg in current.args if isinstance(arg, BaseException)), None)
        current = current.__cause__ or inner or current.__context__
