"""aio-pika's and aiormq's exceptions become ours, each one clear sentence without a password."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiormq.exceptions as amqp

from amqpflow.errors import (
    AmqpflowError,
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    PermissionDenied,
    TlsFailed,
    VirtualHostMissing,
)

_TRANSPORT = (OSError, EOFError, asyncio.IncompleteReadError, asyncio.TimeoutError, RuntimeError)


@contextmanager
def translate() -> Iterator[None]:
    """Wrap calls on an open connection or channel."""
    try:
        yield
    except AmqpflowError:
        raise
    except (amqp.AMQPError, *_TRANSPORT) as error:
        raise from_amqp(error) from error
    except Exception as error:
        # what aiormq throws into its tasks when the peer hung up without a word
        if type(error) is Exception:
            raise BrokerUnavailable("the connection to the broker was lost") from error
        raise


def from_amqp(error: BaseException) -> AmqpflowError:
    """
    The AmqpflowError for what went wrong on an open connection.

    Match ACCESS_REFUSED, not the wording, which differs between releases (fact 7.5).
    """
    text = _text(error)
    code = next((arg for arg in error.args if isinstance(arg, int)), 0)
    if not code and (found := re.match(r"([A-Z_]{6,})", text)):
        code = _CODES.get(found[1], 0)
    if isinstance(error, amqp.ChannelAccessRefused) or "ACCESS_REFUSED" in text:
        return PermissionDenied(
            text, hint="`amqpflow permissions FILE` prints what each kind of user needs, and the lines that grant it"
        )
    if isinstance(error, amqp.AMQPChannelError) and not isinstance(error, amqp.ChannelInvalidStateError):
        return BrokerError(text, code=code)
    if isinstance(error, amqp.ConnectionClosed) and code not in (0, 320):
        return BrokerError(text, code=code)
    return BrokerUnavailable(f"the connection to the broker was lost: {text}")


def from_connecting(error: BaseException, where: str) -> AmqpflowError:
    """The AmqpflowError for a connection that could not be opened; `where` is the redacted URL."""
    if isinstance(error, asyncio.TimeoutError):
        return BrokerUnavailable(f"{where}: no answer in time; is that the AMQP port?")
    text = _text(error)
    tls = _tls_error(error)
    if isinstance(error, amqp.ProbableAuthenticationError | amqp.AuthenticationError):
        return AuthenticationFailed(
            f"{where}: RabbitMQ refused the user or the password",
            hint="the user guest may only connect from localhost" if "guest:" in where else "",
        )
    if isinstance(error, amqp.InvalidFrameError) and "OpenOk" in text:
        # aiormq drops the text of RabbitMQ's refusal to open the virtual host
        return VirtualHostMissing(
            f"{where}: there is no such virtual host, or the user has no access to it",
            hint="rabbitmqctl add_vhost NAME; rabbitmqctl set_permissions -p NAME USER ...",
        )
    if isinstance(error, amqp.ConnectionClosed):
        if "vhost" in text:
            missing = "not found" in text
            return VirtualHostMissing(
                f"{where}: {'there is no such virtual host' if missing else 'the user has no access to it'}: {text}",
                hint="rabbitmqctl add_vhost NAME" if missing else "rabbitmqctl set_permissions -p VHOST USER ...",
            )
        return BrokerUnavailable(f"{where}: the broker closed the connection: {text}")
    if tls is not None:
        verify = "certificate" in str(tls).lower()
        return TlsFailed(
            f"{where}: TLS failed: {_text(tls)}",
            hint="--ca-file names the CA to trust" if verify else "is this port really TLS? amqps is usually 5671",
        )
    if isinstance(error, amqp.IncompatibleProtocolError | EOFError | asyncio.IncompleteReadError):
        return BrokerUnavailable(f"{where}: what listens there does not speak AMQP 0-9-1, or wants TLS (amqps://)")
    return BrokerUnavailable(f"{where}: cannot connect: {text}")


_CODES = {"NOT_FOUND": 404, "PRECONDITION_FAILED": 406, "RESOURCE_LOCKED": 405, "ACCESS_REFUSED": 403}


def _text(error: BaseException) -> str:
    for each in _chain(error):
        words = [arg for arg in each.args if isinstance(arg, str) and arg]
        if words:
            return words[-1]
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it; aiormq makes chains that bite their own tail."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and not any(current is each for each in seen):
        yield current
        seen.append(current)
        inner = next((arg for arg in current.args if isinstance(arg, BaseException)), None)
        current = current.__cause__ or inner or current.__context__


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    return next((each for each in _chain(error) if isinstance(each, ssl.SSLError)), None)
