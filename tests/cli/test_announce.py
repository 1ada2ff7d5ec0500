"""What is said about the connection before it is made."""

from __future__ import annotations

import pytest

from amqpflow.cli.options.connection import announce
from amqpflow.rabbitmq.address import resolve_address


@pytest.mark.parametrize(
    ("url", "management_url", "said"),
    [
        ("amqp://h/", None, "Warning: ca.pem, c.pem, k.pem: not used, since the URL is amqp:// (TLS is amqps://).\n"),
        (
            "amqp://h/",
            "https://h:15671",
            "Warning: ca.pem, c.pem, k.pem: not used for AMQP, since the URL is amqp:// (TLS is amqps://).\n",
        ),
        ("amqps://h/", None, ""),
    ],
)
def test_tls_files_without_tls_are_said(
    url: str, management_url: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(resolve_address(url, management_url, ca_file="ca.pem", cert_file="c.pem", key_file="k.pem", environ={}))
    assert capsys.readouterr().err == said


def test_a_management_url_that_is_not_used_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"AMQPFLOW_MANAGEMENT_URL": "http://user:secret@staging:15672"}
    announce(resolve_address("amqp://production/", environ=environ))
    assert capsys.readouterr().err == (
        "AMQPFLOW_MANAGEMENT_URL is not used, because --url is given: without --management-url the management API is "
        "expected at http://production:15672.\n"
    )
    announce(resolve_address("amqp://production/", "http://production:1", environ=environ))
    assert capsys.readouterr().err == ""
