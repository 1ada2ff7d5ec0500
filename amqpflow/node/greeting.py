"""Find out whether a RabbitMQ answers, and which one."""

from __future__ import annotations

import socket

from amqpflow.errors import BrokerUnavailableError, TlsError
from amqpflow.rabbitmq.address import BrokerAddress

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_LARGEST_GREETING = 64 * 1024


def greet(address: BrokerAddress, *, timeout: float) -> tuple[str, str]:
    """Connect, read connection.start and close; return the broker's product and version.

    It takes no user. `timeout` is in seconds, for each step.

    Raises:
        BrokerUnavailableError: nothing answers there, or something else than an AMQP 0-9-1 broker.
        TlsError: the TLS handshake failed.
    """
    import ssl

    where = f"{address.host}:{address.port}"
    try:
        with socket.create_connection((address.host, address.port), timeout=timeout) as plain:
            if address.tls:
                with address.ssl_context().wrap_socket(plain, server_hostname=address.host) as secured:
                    return _greeting(secured, where)
            return _greeting(plain, where)
    except ssl.SSLError as error:
        raise TlsError(f"the TLS handshake with {where} failed: {error.reason or error}") from error
    except OSError as error:
        raise BrokerUnavailableError(f"no RabbitMQ answers at {where}: {error.strerror or error}") from error


def _greeting(connection: socket.socket, where: str) -> tuple[str, str]:
    from pamqp import commands, frame
    from pamqp.exceptions import PAMQPException

    connection.sendall(PROTOCOL_HEADER)
    data = b""
    while len(data) < 7 or len(data) < 8 + int.from_bytes(data[3:7], "big"):
        chunk = connection.recv(4096)
        data += chunk
        if not chunk or len(data) > _LARGEST_GREETING or data[:1] != b"\x01":
            raise BrokerUnavailableError(f"the server at {where} does not speak AMQP 0-9-1")
    try:
        _, _, start = frame.unmarshal(data)
    except PAMQPException as error:
        raise BrokerUnavailableError(f"the server at {where} does not speak AMQP 0-9-1: {error}") from error
    properties = start.server_properties if isinstance(start, commands.Connection.Start) else {}
    product, version = properties.get("product", ""), properties.get("version", "")
    return str(product), str(version)
