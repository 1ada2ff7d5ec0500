"""What is said about the connection before it is made."""

from __future__ import annotations

import pytest

from amqpflow.cli.options import announce
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
