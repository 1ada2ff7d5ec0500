"""The export file: one JSON object a line, in ASCII; docs/reference/export.md is the contract.

What puts a message back is its content header and its body, as they were on the wire; everything else in a line is for
people and for jq. Nothing that a message holds can act on a terminal, in a browser or in an editor that opens the file:
everything but plain ASCII, and `<`, `>` and `&`, is escaped.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from amqpflow.model.content_header import ContentHeader
from amqpflow.model.json_values import json_value, picked, rfc3339

from .parked import ParkedMessage

FORMAT = "amqpflow.export"
VERSION = 2
_READABLE = (1, 2)
_LONGEST_TEXT = 64 * 1024 * 1024  #: bytes of a body that is written as text, which escaping makes six times as long
_HEAD = struct.Struct(">HHQ")  # class, weight and body size, before the property flags
_BASIC = 60
_ESCAPED = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\x7f": "\\u007f"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportHead:
    """The first line."""

    id: str  #: of this export
    vhost: str
    topology: str
    version: str  #: of amqpflow
    discard: bool | None  #: its messages are taken out of their queues; None: version 1 does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedMessage:
    """One message, as it can be published again."""

    number: int  #: from 1, in the order of the file
    parking_queue: str
    id: str  #: of `parked list`
    header: ContentHeader  #: readable; shown as if it had no properties when they are cut short, which does not hinder
    body: bytes
    check: str  #: of all its bytes, in hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """RabbitMQ has taken the ack of every message above this line."""

    count: int
    check: str  #: as `Checks` returns it, over these messages


class Checks:
    """The digest over the checks of all messages so far, by which a reader sees whether they are still the same."""

    def __init__(self) -> None:
        self._hashed = blake2b(digest_size=16)

    def add(self, check: str) -> None:
        """Add one more message."""
        self._hashed.update(bytes.fromhex(check))

    def __str__(self) -> str:
        return self._hashed.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportEnd:
    """The last line of an export that was finished."""

    count: int


def head_line(head: ExportHead, *, at: int) -> str:
    """Write the first line; `at` is now, in ms since the epoch."""
    return _line(
        {
            "type": "head",
            "format": FORMAT,
            "version": VERSION,
            "id": head.id,
            "at": rfc3339(at),
            "vhost": head.vhost,
            "topology": head.topology,
            "amqpflow": head.version,
            "discard": bool(head.discard),
        }
    )


def message_line(parked: ParkedMessage, number: int) -> str:
    """Write one message."""
    delivery = parked.delivery
    properties = delivery.properties
    content: dict[str, Any] = {}
    if len(delivery.body) <= _LONGEST_TEXT:
        try:
            content = {"body": delivery.body.decode()}
        except UnicodeDecodeError:
            pass
    content = content or {"body_base64": base64.b64encode(delivery.body).decode("ascii")}
    flags = delivery.header.payload[_HEAD.size :]
    return _line(
        {
            "type": "message",
            "number": number,
            "parking_queue": delivery.queue,
            **picked(parked, "id", "queue", "reason", "detail", "attempts"),
            **picked(parked, "error_type", "error_message", "error_location"),
            "failed_at": rfc3339(parked.failed_at),
            **picked(parked, "exchange", "routing_key"),
            "properties": json_value(properties.present()),
            "headers": json_value(properties.headers or {}),
            "header_base64": base64.b64encode(flags).decode("ascii"),
            "check": check_of(parked),
            **content,
        }
    )


def discarded_line(count: int, checks: Checks) -> str:
    """Say that RabbitMQ has taken the acks of the `count` messages above."""
    return _line({"type": "discarded", "count": count, "check": str(checks)})


def end_line(count: int) -> str:
    """Write the last line."""
    return _line({"type": "end", "count": count})


def read_line(text: str) -> ExportHead | ExportedMessage | Discarded | ExportEnd:
    """Read a line back.

    Raises:
        ValueError: it is not a line of an export that this version reads, or it was changed.
    """
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(line, dict):
        raise ValueError("it is not a JSON object")
    match line.get("type"):
        case "head":
            return _head(line)
        case "message":
            return _message(line)
        case "discarded" if isinstance(line.get("count"), int) and isinstance(line.get("check"), str):
            return Discarded(count=line["count"], check=line["check"])
        case "end" if isinstance(line.get("count"), int):
            return ExportEnd(count=line["count"])
    raise ValueError("neither head, message, discarded nor end of an export")


def _head(line: Mapping[str, Any]) -> ExportHead:
    if line.get("format") != FORMAT:
        raise ValueError(f"it is not an export of amqpflow: its format is {line.get('format')!r}")
    version = line.get("version")
    if version not in _READABLE:
        raise ValueError(f"it has version {version!r} of the format, and this amqpflow reads 1 to {VERSION}")
    texts = [line.get(name) for name in ("id", "vhost", "topology", "amqpflow")]
    if not all(isinstance(each, str) for each in texts) or not line["id"]:
        raise ValueError("a field of its head is missing")
    return ExportHead(
        id=line["id"],
        vhost=line["vhost"],
        topology=line["topology"],
        version=line["amqpflow"],
        discard=None if version == 1 else line.get("discard") is True,
    )


def _message(line: Mapping[str, Any]) -> ExportedMessage:
    number, queue, name = line.get("number"), line.get("parking_queue"), line.get("id")
    if not (isinstance(number, int) and isinstance(queue, str) and isinstance(name, str)):
        raise ValueError("number, parking_queue or id is missing")
    flags = _decoded(line, "header_base64")
    if isinstance(line.get("body"), str):
        try:
            body = line["body"].encode()
        except UnicodeEncodeError:
            raise ValueError("body is not text") from None
    else:
        body = _decoded(line, "body_base64")
    if line.get("check") != _check(flags, body):
        raise ValueError("it was changed since it was written: check does not fit header_base64 and the body")
    header = ContentHeader(_HEAD.pack(_BASIC, 0, len(body)) + flags).as_readable()
    return ExportedMessage(
        number=number, parking_queue=queue, id=name, header=header, body=body, check=_check(flags, body)
    )


def _decoded(line: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(line[name], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise ValueError(f"{name} is missing or not base64") from None


def check_of(parked: ParkedMessage) -> str:
    """Return the `check` of a message that is exported."""
    return _check(parked.delivery.header.payload[_HEAD.size :], parked.delivery.body)


def _check(flags: bytes, body: bytes) -> str:
    hashed = blake2b(flags, digest_size=16)
    hashed.update(len(flags).to_bytes(8, "big"))
    hashed.update(body)
    return hashed.hexdigest()


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False).translate(_ESCAPED) + "\n"
