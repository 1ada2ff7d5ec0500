"""Why there is no management API: the status and where it leads to are named, and no password is."""

from __future__ import annotations

import pytest

from amqpflow.rabbitmq.management_errors import no_answer, not_rabbitmq
from amqpflow.rabbitmq.peer import Protocol

URL = "http://m:1"


@pytest.mark.parametrize(
    ("status", "location", "says", "hint"),
    [
        (301, "https://m/", "redirects to https://m/ (HTTP 301 Moved Permanently)", "give the management URL"),
        (302, "/login?next=/api", "redirects to /login (HTTP 302 Found)", "redirections are not followed"),
        (308, "", "redirects to another address (HTTP 308 Permanent Redirect)", "give the management URL"),
        (307, "https://u:secret@m/?token=secret", "redirects to https://u:***@m/ (HTTP 307", "not followed"),
        (401, "", "says HTTP 401 Unauthorized: a proxy refuses the request", "login of its own"),
        (403, "", "says HTTP 403 Forbidden: a proxy refuses the request", "does not admit this host"),
        (404, "", "says HTTP 404 Not Found: it is not RabbitMQ's management API", "management.path_prefix"),
        (406, "", "says HTTP 406 Not Acceptable: it is not RabbitMQ's management API", "management.path_prefix"),
        (502, "", "says HTTP 502 Bad Gateway: a proxy cannot reach RabbitMQ", "rabbitmq-plugins enable"),
        (503, "", "says HTTP 503 Service Unavailable: a proxy cannot reach RabbitMQ", "check that RabbitMQ is up"),
        (504, "", "says HTTP 504 Gateway Timeout: a proxy cannot reach RabbitMQ", "check that RabbitMQ is up"),
        (500, "", "says HTTP 500 Internal Server Error: it is not RabbitMQ's management API, or a proxy", ""),
        (599, "", "says HTTP 599: it is not", ""),
    ],
)
def test_an_answer_that_is_not_rabbitmqs(status: int, location: str, says: str, hint: str) -> None:
    error = not_rabbitmq(URL, status, location)
    assert f"the server at {URL} {says}" in str(error)
    assert hint in error.hint
    assert bool(hint) == bool(error.hint)
    assert "secret" not in f"{error}{error.hint}"


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", f"the server at {URL} does not speak TLS", "http://"),
        ("[SSL: RECORD_LAYER_FAILURE] record layer failure", f"the server at {URL} does not speak TLS", "http://"),
        ("certificate verify failed: self-signed certificate", "self-signed certificate", "`ca_file`"),
        ("certificate verify failed: Hostname mismatch", "Hostname mismatch", "as its certificate does"),
        ("All connection attempts failed", "cannot be reached: All connection attempts failed", "rabbitmq-plugins"),
        ("", "cannot be reached: ValueError", "check the management URL"),
    ],
)
def test_no_answer_in_http(text: str, says: str, hint: str) -> None:
    error = no_answer(URL, ValueError(text))
    assert says in str(error)
    assert hint in error.hint
    assert bool(hint) == bool(error.hint)


def test_another_protocol_is_named() -> None:
    error = no_answer(URL, ValueError(), speaks=Protocol.AMQP)
    assert (str(error), "15672" in error.hint) == (f"the server at {URL} speaks AMQP, not HTTP", True)
    error = no_answer(URL, ValueError(), speaks=Protocol.TLS)
    assert (str(error), error.hint) == (f"the server at {URL} requires TLS", "write https://")


def test_a_slow_answer() -> None:
    assert "does not answer in time" in str(no_answer(URL, TimeoutError(), slow=True))
