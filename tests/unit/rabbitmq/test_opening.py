"""Why a connection could not be opened: each cause has a name of its own, and a hint that fits it."""

from __future__ import annotations

import errno
import ssl

import aiormq.exceptions as amqp
import pytest

from amqpflow.errors import (
    AmqpflowError,
    AuthenticationError,
    BrokerUnavailableError,
    TlsError,
    VirtualHostMissingError,
)
from amqpflow.model.closing import closed_by_broker, socket_closed
from amqpflow.rabbitmq.address import BrokerAddress, resolve_address
from amqpflow.rabbitmq.opening import Seen, not_opened
from amqpflow.rabbitmq.peer import Protocol

NOTHING, SILENT = Seen(), Seen(reached=True, closed=socket_closed())


def address(url: str = "amqp://app:secret@broker/shop") -> BrokerAddress:
    return resolve_address(url, environ={})


def caused(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


def sure(found: AmqpflowError, kind: type[AmqpflowError], words: str, hint: str) -> None:
    assert type(found) is kind
    assert words in str(found)
    assert hint in found.hint
    assert bool(hint) == bool(found.hint)
    assert "secret" not in f"{found}{found.hint}"
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    ("code", "said", "kind", "words", "hint"),
    [
        (530, "NOT_ALLOWED - vhost shop not found", VirtualHostMissingError, "no virtual host shop", "add_vhost shop"),
        (
            530,
            "NOT_ALLOWED - access to vhost 'shop' refused for user 'app'",
            VirtualHostMissingError,
            "the user app has no access to the virtual host shop",
            "set_permissions -p shop app",
        ),
        (
            530,
            "NOT_ALLOWED - access to vhost 'shop' refused for user 'app' by backend rabbit_auth_backend_ldap: no group",
            VirtualHostMissingError,
            "no access to the virtual host shop (by backend rabbit_auth_backend_ldap: no group)",
            "set_permissions -p shop app",
        ),
        (
            530,
            "NOT_ALLOWED - access to vhost 'shop' refused for user 'app': connection limit (12) is reached",
            BrokerUnavailableError,
            "the virtual host shop accepts no more connections: the limit of 12 is reached",
            "set_vhost_limits -p shop",
        ),
        (
            530,
            "NOT_ALLOWED - connection refused for user 'app': user connection limit (2) is reached",
            BrokerUnavailableError,
            "the user app has no connections left: the limit of 2 is reached",
            "set_user_limits app",
        ),
        (
            530,
            "NOT_ALLOWED - connection refused: node connection limit (5000) is reached",
            BrokerUnavailableError,
            "the node accepts no more connections: the limit of 5000 is reached",
            "connection_max",
        ),
        (
            530,
            "NOT_ALLOWED - access to vhost 'shop' refused for user 'app': connection limit cannot be queried, timeout",
            BrokerUnavailableError,
            "530 NOT_ALLOWED - access to vhost",
            "",
        ),
        (
            541,
            "INTERNAL_ERROR - access to vhost 'shop' refused for user 'app': vhost 'shop' is down",
            BrokerUnavailableError,
            "the virtual host shop is down",
            "restart_vhost -p shop",
        ),
        (403, "ACCESS_REFUSED - Login was refused", AuthenticationError, "user or the password", "authenticate_user"),
        (320, "CONNECTION_FORCED - maintenance", BrokerUnavailableError, "320 CONNECTION_FORCED - maintenance", ""),
    ],
)
def test_what_rabbitmq_refuses(code: int, said: str, kind: type[AmqpflowError], words: str, hint: str) -> None:
    closed = closed_by_broker("connection", code, said)
    sure(not_opened(amqp.InvalidFrameError("x"), address(), Seen(reached=True, closed=closed)), kind, words, hint)


def test_a_name_with_a_space_is_quoted_in_the_command_that_helps() -> None:
    closed = closed_by_broker("connection", 530, "NOT_ALLOWED - vhost my shop not found")
    found = not_opened(amqp.InvalidFrameError("x"), address("amqp://u:secret@h/my%20shop"), Seen(closed=closed))
    assert found.hint == "rabbitmqctl add_vhost 'my shop'"


def test_a_slash_at_the_end_of_a_url_is_pointed_out() -> None:
    closed = closed_by_broker("connection", 530, "NOT_ALLOWED - vhost shop/ not found")
    found = not_opened(amqp.InvalidFrameError("x"), address("amqp://u:secret@h/shop/"), Seen(closed=closed))
    sure(found, VirtualHostMissingError, "no virtual host shop/", "remove the slash at the end of the URL")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("amqp://guest:secret@broker", "only connect from localhost"),
        ("amqp://guest:secret@127.0.0.1", "authenticate_user USER"),
        ("amqp://guest:secret@[::1]", "authenticate_user USER"),
        ("amqp://app:secret@broker", "authenticate_user USER"),
    ],
)
def test_the_user_guest_is_only_explained_where_it_is_the_reason(url: str, hint: str) -> None:
    for error in (amqp.ProbableAuthenticationError("ACCESS_REFUSED"), amqp.InvalidFrameError("x")):
        closed = (
            None if isinstance(error, amqp.ProbableAuthenticationError) else closed_by_broker("connection", 403, "")
        )
        found = not_opened(error, address(url), Seen(reached=True, first=b"\x01", closed=closed))
        sure(found, AuthenticationError, "refused the user or the password", hint)


def test_a_mechanism_that_the_broker_does_not_offer_is_no_wrong_password() -> None:
    found = not_opened(amqp.AuthenticationError("PLAIN AMQPLAIN", ["PLAIN"]), address(), Seen(first=b"\x01"))
    sure(found, AuthenticationError, "does not offer the mechanism that ?auth= names, but PLAIN AMQPLAIN", "?auth=")


@pytest.mark.parametrize(
    ("first", "words", "hint"),
    [
        (b"HTTP/1.1 400 Bad", "the server speaks HTTP", "5672"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "requires TLS", "amqps://"),
        (b"AMQP\x00\x01\x00\x00", "but AMQP 1.0.0", ""),
        (b"SSH-2.0-OpenSSH_9", "does not speak AMQP 0-9-1", "5672"),
        (b"-ERR unknown", "does not speak AMQP 0-9-1", "5672"),
    ],
)
def test_what_is_no_rabbitmq_is_known_by_its_first_bytes(first: bytes, words: str, hint: str) -> None:
    error = amqp.AMQPConnectionError("Server communication error")
    sure(not_opened(error, address(), Seen(reached=True, first=first)), BrokerUnavailableError, words, hint)


@pytest.mark.parametrize(
    ("speaks", "words"), [(Protocol.HTTP, "the server speaks HTTP"), (Protocol.TLS, "requires TLS")]
)
def test_what_sent_nothing_is_known_by_what_it_answers_when_asked_again(speaks: Protocol, words: str) -> None:
    found = not_opened(amqp.AMQPConnectionError("x"), address(), Seen(reached=True, speaks=speaks))
    assert words in str(found)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("amqp://broker:5672", "a proxy does this while its broker is down"),
        ("amqp://broker:15672", "15672 is RabbitMQ's management API"),
        ("amqp://broker:5671", "amqps://"),
        ("amqps://broker:15671", "usually HTTP"),
    ],
)
def test_a_peer_that_closes_without_an_answer(url: str, hint: str) -> None:
    error = amqp.AMQPConnectionError("Server connection unexpectedly closed. Read 0 bytes but 1 bytes expected")
    sure(
        not_opened(error, address(url), SILENT), BrokerUnavailableError, "closed the connection without an answer", hint
    )


@pytest.mark.parametrize(
    ("error", "seen", "words", "hint"),
    [
        (TimeoutError(), NOTHING, "could not be reached in time", "firewall"),
        (TimeoutError(), Seen(reached=True), "was reached but did not answer in time", "AMQP port"),
        (
            amqp.AMQPConnectionError(errno.ECONNREFUSED, "Connect call failed ('1.2.3.4', 5672)"),
            NOTHING,
            "cannot connect: nothing listens on port 5672 of broker",
            "check that the broker is up",
        ),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), NOTHING, "cannot connect: Network is unreachable", ""),
    ],
)
def test_a_peer_that_cannot_be_reached(error: BaseException, seen: Seen, words: str, hint: str) -> None:
    sure(not_opened(error, address(), seen), BrokerUnavailableError, words, hint)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "amqp:// is without TLS"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", "`ca_file`"),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname mismatch, ...",
            "as its certificate does",
        ),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: IP address mismatch", "as its certificate does"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired", "renewed"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "`cert_file`"),
        ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure", "`cert_file`"),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", "`cert_file`"),
    ],
)
def test_why_tls_failed(text: str, hint: str) -> None:
    error = caused(amqp.AMQPConnectionError(), ssl.SSLError(1, text))
    sure(not_opened(error, address("amqps://app:secret@h"), NOTHING), TlsError, "TLS failed", hint)


def test_a_chain_of_causes_that_bites_its_tail_comes_to_an_end() -> None:
    first, second = amqp.AMQPConnectionError(), amqp.AMQPConnectionError()
    first.__cause__, second.__cause__ = second, first
    assert type(not_opened(first, address(), NOTHING)) is BrokerUnavailableError
