"""The errors for what the management API, a proxy, another port or another server answered, and what to do."""

from __future__ import annotations

import html
import json
from http import HTTPStatus

from amqpflow.errors import AmqpflowError, BrokerError, ManagementUnavailableError, PermissionDeniedError

from .peer import Protocol
from .url import redact

PATH_PREFIX = "if there is a path in front of /api (management.path_prefix), add it to the management URL"


def refusal(url: str, status: int, body: bytes, path: tuple[str, ...], location: str = "") -> AmqpflowError:
    """Return the error for an answer that is not a success.

    Args:
        url: of the management API, without user and password.
        status: of the answer, from 300.
        body: of the answer.
        path: of the request, below /api.
        location: where a redirection leads to.
    """
    where, reason = " ".join(path), _reason(body)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and not body:
        return BrokerError(
            f"the management API at {url} failed on {where} (HTTP 500)",
            code=500,
            hint="RabbitMQ cannot list an object whose name or routing key is not text, which its HTTP API lets "
            "anyone create; its log names the request",
        )
    if reason is None:
        return not_rabbitmq(url, status, location)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return _denied(url, reason, path)
    hint = ""
    if status == HTTPStatus.NOT_FOUND:
        hint = PATH_PREFIX if path == ("whoami",) else "a proxy that decodes %2F gives the same answer"
    return BrokerError(f"the management API refused {where}: {reason}", code=status, hint=hint)


def _denied(url: str, reason: str, path: tuple[str, ...]) -> PermissionDeniedError:
    where = f"the management API at {url}"
    if reason == "Not management user":
        return PermissionDeniedError(
            f"{where} refuses this user: the tag management is missing",
            hint="rabbitmqctl set_user_tags USER management",
        )
    if "virtual host" in reason:
        return PermissionDeniedError(
            f"{where} refuses this user access to the virtual host {path[1]}",
            hint="rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ",
        )
    if "object" in reason:
        tag = "policymaker" if path[0] in ("policies", "parameters", "global-parameters") else "administrator"
        return PermissionDeniedError(
            f"{where} refuses this user: the tag {tag} is missing", hint=f"rabbitmqctl set_user_tags USER {tag}"
        )
    return PermissionDeniedError(
        f"{where} refuses the user or the password",
        hint="`rabbitmqctl authenticate_user USER` asks for a password and tests it",
    )


def _reason(body: bytes) -> str | None:
    """Return RabbitMQ's own words; None when the answer is not RabbitMQ's. 3.10 escapes them for HTML."""
    try:
        found = json.loads(body)
        reason = found.get("reason") or found.get("error")
    except (ValueError, AttributeError):
        return None
    return " ".join(html.unescape(str(reason)).split()) if reason else None


def not_rabbitmq(url: str, status: int, location: str = "") -> ManagementUnavailableError:
    """Return the error for an answer that is not RabbitMQ's own.

    Args:
        url: of the management API, without user and password.
        status: of the answer, from 300.
        location: where a redirection leads to; it is not followed, since it would take the password along.
    """
    answered = f"HTTP {status}{_phrase(status)}"
    if 300 <= status < 400:
        where = redact(location) if location else "another address"
        return ManagementUnavailableError(
            f"the server at {url} redirects to {where} ({answered})",
            hint="give the management URL that it leads to, without /api/...; redirections are not followed",
        )
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
        what, hint = (
            "a proxy refuses the request",
            "it requires a login of its own, or does not admit this host",
        )
    elif status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT):
        what = "a proxy cannot reach RabbitMQ"
        hint = (
            "check that RabbitMQ is up and its management plugin is enabled: "
            "rabbitmq-plugins enable rabbitmq_management"
        )
    elif status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_ACCEPTABLE):
        what, hint = "it is not RabbitMQ's management API", PATH_PREFIX
    else:
        what, hint = "it is not RabbitMQ's management API, or a proxy in front of it failed", ""
    return ManagementUnavailableError(f"the server at {url} says {answered}: {what}", hint=hint)


def no_answer(
    url: str, error: Exception, *, slow: bool = False, speaks: Protocol = Protocol.UNKNOWN
) -> ManagementUnavailableError:
    """Return the error for a request that got no answer in HTTP.

    Args:
        url: of the management API, without user and password.
        error: what the HTTP client raised.
        slow: there was none in time.
        speaks: what the port was found to speak.
    """
    where = f"the management API at {url}"
    if slow:
        return ManagementUnavailableError(
            f"{where} does not answer in time", hint="check whether a firewall or a proxy drops the requests"
        )
    text = str(error) or type(error).__name__
    words = text.lower().replace("_", " ")
    if speaks is Protocol.AMQP:
        return ManagementUnavailableError(
            f"the server at {url} speaks AMQP, not HTTP",
            hint="the management API is usually on port 15672, with TLS on 15671",
        )
    if speaks is Protocol.TLS:
        return ManagementUnavailableError(f"the server at {url} requires TLS", hint="write https://")
    if "wrong version number" in words or "record layer failure" in words:
        return ManagementUnavailableError(
            f"the server at {url} does not speak TLS", hint="write http://, which is without TLS"
        )
    hint = (
        "check the management URL; `rabbitmq-plugins enable rabbitmq_management` starts the API, usually on port 15672"
    )
    if "certificate verify failed" in words:
        hint = "`ca_file` (in a service ca_file=) names the CA to trust"
        if "mismatch" in words or "not valid for" in words:
            hint = "the URL must name the host as its certificate does"
    return ManagementUnavailableError(f"{where} cannot be reached: {text}", hint=hint)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
