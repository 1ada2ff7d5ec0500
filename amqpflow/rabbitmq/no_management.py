"""Why there is no management API: what a proxy, another port or another server answered, and what to do."""

from __future__ import annotations

from http import HTTPStatus

from amqpflow.errors import ManagementUnavailableError

from .peer import Protocol
from .url import redact

PATH_PREFIX = "is there a path in front of /api (management.path_prefix)? It is part of the management URL"


def not_rabbitmq(url: str, status: int, location: str = "") -> ManagementUnavailableError:
    """
    The error for an answer that is not RabbitMQ's own.

    Args:
        url: of the management API, without user and password.
        status: of the answer, from 300.
        location: where a redirection leads to; it is not followed, since it would take the password along.
    """
    answered = f"HTTP {status}{_phrase(status)}"
    if 300 <= status < 400:
        where = redact(location) if location else "another address"
        return ManagementUnavailableError(
            f"what answers at {url} redirects to {where} ({answered})",
            hint="give the management URL that it leads to, without /api/...; redirections are not followed",
        )
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
        what, hint = (
            "a proxy refuses the request",
            "it wants another login than RabbitMQ's, or does not let this host in",
        )
    elif status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT):
        what = "a proxy does not reach RabbitMQ"
        hint = "is RabbitMQ up, and its management plugin enabled? rabbitmq-plugins enable rabbitmq_management"
    elif status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_ACCEPTABLE):
        what, hint = "it is not RabbitMQ's management API", PATH_PREFIX
    else:
        what, hint = "it is not RabbitMQ's management API, or a proxy in front of it failed", ""
    return ManagementUnavailableError(f"what answers at {url} says {answered}: {what}", hint=hint)


def no_answer(
    url: str, error: Exception, *, slow: bool = False, speaks: Protocol = Protocol.UNKNOWN
) -> ManagementUnavailableError:
    """
    The error for a request that got no answer in HTTP.

    Args:
        url: of the management API, without user and password.
        error: what the HTTP client raised.
        slow: there was none in time.
        speaks: what the port was found to speak.
    """
    where = f"the management API at {url}"
    if slow:
        return ManagementUnavailableError(f"{where} does not answer in time")
    text = str(error) or type(error).__name__
    words = text.lower().replace("_", " ")
    if speaks is Protocol.AMQP:
        return ManagementUnavailableError(
            f"what listens at {url} speaks AMQP", hint="the management API is usually on port 15672, with TLS on 15671"
        )
    if speaks is Protocol.TLS:
        return ManagementUnavailableError(f"what listens at {url} wants TLS", hint="write https://")
    if "wrong version number" in words or "record layer failure" in words:
        return ManagementUnavailableError(f"what listens at {url} does not speak TLS", hint="http:// is without TLS")
    hint = ""
    if "certificate verify failed" in words:
        hint = "ca_file (--ca-file) names the CA to trust"
        if "mismatch" in words or "not valid for" in words:
            hint = "the URL must name the host as its certificate does"
    return ManagementUnavailableError(f"{where} cannot be reached: {text}", hint=hint)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
