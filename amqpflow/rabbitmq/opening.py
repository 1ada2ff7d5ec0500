"""Why a connection could not be opened: one clear sentence without a password, and what to do.

RabbitMQ closes a connection while it is opened with 403 for a login and with 530 or 541 for all else: a virtual host
that does not exist, a missing permission, each kind of limit. Its words tell them apart (fact 18.7). What is not
RabbitMQ is known by the first bytes that it sends.
"""

from __future__ import annotations

import asyncio
import errno
import json
import re
import shlex
import ssl
from dataclasses import dataclass, field

import aiormq.exceptions as amqp

from amqpflow.errors import (
    AmqpflowError,
    AuthenticationError,
    BrokerUnavailableError,
    TlsError,
    VirtualHostMissingError,
)
from amqpflow.model.closing import CloseReason

from .address import BrokerAddress
from .peer import Protocol, protocol_of
from .translate import chain_of, error_text

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HTTP_PORTS = (80, 443, 8080, 15671, 15672)
_TLS_PORTS = (443, 5671, 15671)
_LIMIT = re.compile(r"(?P<whose>node |user |)connection limit \((?P<limit>\d+)\) is reached")
_BACKEND = re.compile(r"refused for user '.*' by backend (.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen of the peer before the attempt failed."""

    reached: bool = False  #: the socket was open
    first: bytes = field(default=b"", repr=False)  #: the first bytes that it sent
    speaks: Protocol = Protocol.UNKNOWN  #: what it was found to speak when it sent none
    closed: CloseReason | None = None  #: how the connection ended


def not_opened(error: BaseException, address: BrokerAddress, seen: Seen) -> AmqpflowError:
    """Return the AmqpflowError for a connection that could not be opened."""
    if seen.closed is not None and seen.closed.code:
        return refused(seen.closed.code, seen.closed.reply_text, address)
    tls = next((each for each in chain_of(error) if isinstance(each, ssl.SSLError)), None)
    if tls is not None:
        return _tls_failed(tls, address)
    if (seen.first and not seen.first.startswith(b"\x01")) or seen.speaks in (Protocol.HTTP, Protocol.TLS):
        return _not_amqp(seen, address)
    if isinstance(error, amqp.AuthenticationError):
        offered = str(error.args[0]) if error.args else ""
        wanted = "the mechanism that ?auth= names"
        return AuthenticationError(
            f"{address}: the broker does not offer {wanted}" + (f", but {offered}" if offered else ""),
            hint="leave ?auth= out of the URL to log in with user and password",
        )
    if isinstance(error, amqp.ProbableAuthenticationError):
        return _login_refused(address)
    if isinstance(error, asyncio.TimeoutError):
        what = "it was reached but did not answer in time" if seen.reached else "it could not be reached in time"
        hint = (
            "check that this is the AMQP port of a running broker"
            if seen.reached
            else "check whether a firewall drops the packets"
        )
        return BrokerUnavailableError(f"{address}: {what}", hint=_port_hint(address) or hint)
    if seen.reached and not seen.first:
        return BrokerUnavailableError(
            f"{address}: the server closed the connection without an answer",
            hint=_port_hint(address)
            or "AMQP is usually on port 5672, with TLS (amqps://) on 5671; a proxy does this while its broker is down",
        )
    if any(isinstance(each, OSError) and errno.ECONNREFUSED in each.args for each in chain_of(error)):
        return BrokerUnavailableError(
            f"{address}: cannot connect: nothing listens on port {address.port} of {address.host}",
            hint="check that the broker is up, and that this is its AMQP port",
        )
    return BrokerUnavailableError(f"{address}: cannot connect: {error_text(error)}")


def refused(code: int, reply_text: str, address: BrokerAddress) -> AmqpflowError:
    """Return the AmqpflowError for RabbitMQ's refusal to open a connection.

    Args:
        code, reply_text: of its connection.close.
        address: where to; its user and virtual host are named in the hints.
    """
    text = reply_text.partition(" - ")[2] or reply_text
    vhost, user = address.vhost, address.user
    quoted_vhost, quoted_user = shlex.quote(vhost), shlex.quote(user)
    if code == 403:
        return _login_refused(address)
    if text.startswith("vhost ") and text.endswith(" not found"):
        hint = f"rabbitmqctl add_vhost {quoted_vhost}"
        if vhost.endswith("/") and vhost != "/":
            hint = "remove the slash at the end of the URL: RabbitMQ takes it for a part of the name"
        return VirtualHostMissingError(f"{address}: there is no virtual host {vhost}", hint=hint)
    if text.endswith(" is down"):
        return BrokerUnavailableError(
            f"{address}: the virtual host {vhost} is down on this node",
            hint=f"rabbitmqctl restart_vhost -p {quoted_vhost}; RabbitMQ's log has the reason",
        )
    if limit := _LIMIT.search(text):
        return _limit_reached(limit["whose"].strip(), int(limit["limit"]), address)
    if text.startswith("access to vhost ") and "connection limit" not in text:
        backend = _BACKEND.search(text)
        why = f" (by backend {backend[1]})" if backend else ""
        return VirtualHostMissingError(
            f"{address}: the user {user} has no access to the virtual host {vhost}{why}",
            hint=f"rabbitmqctl set_permissions -p {quoted_vhost} {quoted_user} CONFIGURE WRITE READ; "
            "`amqpflow permissions FILE` prints the patterns",
        )
    return BrokerUnavailableError(f"{address}: RabbitMQ refused the connection: {code} {reply_text}")


def _limit_reached(whose: str, limit: int, address: BrokerAddress) -> BrokerUnavailableError:
    more = json.dumps({"max-connections": limit + 10})
    match whose:
        case "node":
            what = "the node accepts no more connections"
            raised = "connection_max in rabbitmq.conf"
        case "user":
            what = f"the user {address.user} has no connections left"
            raised = f"rabbitmqctl set_user_limits {shlex.quote(address.user)} '{more}'"
        case _:
            what = f"the virtual host {address.vhost} accepts no more connections"
            raised = f"rabbitmqctl set_vhost_limits -p {shlex.quote(address.vhost)} '{more}'"
    return BrokerUnavailableError(
        f"{address}: {what}: the limit of {limit} is reached",
        hint=f"close connections that are not needed, or raise it: {raised}; a consumer opens two connections",
    )


def _login_refused(address: BrokerAddress) -> AuthenticationError:
    only_local = address.user == "guest" and address.host not in _LOOPBACK
    return AuthenticationError(
        f"{address}: RabbitMQ refused the user or the password",
        hint="the user guest may only connect from localhost: create another user"
        if only_local
        else "`rabbitmqctl authenticate_user USER` asks for a password and tests it",
    )


def _tls_failed(error: ssl.SSLError, address: BrokerAddress) -> TlsError:
    text = error_text(error)
    words = text.lower().replace("_", " ")
    if "certificate verify failed" in words:
        if "mismatch" in words or "not valid for" in words:
            hint = "the URL must name the broker as its certificate does"
        elif "expired" in words or "not yet valid" in words:
            hint = "the broker's certificate must be renewed, or the clock of one side is wrong"
        else:
            hint = "`ca_file` (in a service ca_file=) names the CA to trust"
    elif "alert" in words and ("certificate" in words or "handshake" in words or "unknown ca" in words):
        hint = "give a client certificate that the broker trusts: `cert_file` and `key_file`"
    else:
        hint = "check that this port is TLS: amqps is usually 5671; amqp:// is without TLS"
    if "wrong version number" in words or "record layer failure" in words:
        text = "the server does not speak TLS"
    return TlsError(f"{address}: TLS failed: {text}", hint=hint)


def _not_amqp(seen: Seen, address: BrokerAddress) -> BrokerUnavailableError:
    first, speaks = seen.first, seen.speaks or protocol_of(seen.first)
    if speaks is Protocol.HTTP:
        what, hint = "the server speaks HTTP", "give the AMQP port, usually 5672; 15672 is the management API"
    elif speaks is Protocol.TLS:
        what, hint = "the server requires TLS", "write amqps://"
    elif speaks is Protocol.AMQP and len(first) >= 8:
        spoken = ".".join(map(str, first[5:8]))
        what, hint = f"the server does not speak AMQP 0-9-1, but AMQP {spoken}", ""
    else:
        what, hint = "the server does not speak AMQP 0-9-1", "AMQP is usually on port 5672"
    return BrokerUnavailableError(f"{address}: {what}", hint=hint)


def _port_hint(address: BrokerAddress) -> str:
    hints = []
    if address.port in _HTTP_PORTS:
        hints.append(f"port {address.port} is usually HTTP (15672 is RabbitMQ's management API); AMQP is on 5672")
    if address.port in _TLS_PORTS and not address.tls:
        hints.append(f"port {address.port} is usually TLS: amqps://")
    return "; ".join(hints)
