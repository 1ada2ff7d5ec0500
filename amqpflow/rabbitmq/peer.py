"""Find out what listens on a port where RabbitMQ was expected: ask it once more, without a login."""

from __future__ import annotations

import asyncio
import ssl
from enum import StrEnum

_TIMEOUT = 1.0  #: seconds for each question
_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
_QUESTIONS = (_AMQP_HEADER, b"HEAD / HTTP/1.0\r\n\r\n")
_LENGTH = 8  #: bytes of an answer that show the protocol


class Protocol(StrEnum):
    """The protocol that a peer speaks."""

    AMQP = "AMQP"
    HTTP = "HTTP"
    TLS = "TLS"
    UNKNOWN = ""


def protocol_of(first: bytes) -> Protocol:
    """Recognise it by the first bytes that a peer sent."""
    if first.startswith(b"HTTP/"):
        return Protocol.HTTP
    if first.startswith(b"\x15\x03"):
        return Protocol.TLS  # an alert: what it got is not TLS
    if first.startswith((b"AMQP", b"\x01\x00\x00")):
        return Protocol.AMQP
    return Protocol.UNKNOWN


async def ask(host: str, port: int, *, tls: bool) -> Protocol:
    """Find out what listens there. Never raises.

    Args:
        host, port: where.
        tls: ask over TLS, whose certificate is not verified, since nothing secret is sent.
    """
    context = _unverified() if tls else None
    for question in _QUESTIONS:
        if (protocol := protocol_of(await _answer(host, port, context, question))) is not Protocol.UNKNOWN:
            return protocol
    return Protocol.TLS if not tls and await _shakes_hands(host, port) else Protocol.UNKNOWN


async def _answer(host: str, port: int, context: ssl.SSLContext | None, question: bytes) -> bytes:
    answer = b""
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                writer.write(question)
                while len(answer) < _LENGTH and (chunk := await reader.read(_LENGTH)):
                    answer += chunk
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        pass
    return answer


async def _shakes_hands(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port, ssl=_unverified())
            writer.transport.abort()
    except (OSError, TimeoutError):
        return False
    return True


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
