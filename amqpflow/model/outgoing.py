"""A message that a program publishes. It is checked before any of it is sent.

RabbitMQ closes the whole connection over a header that is NaN or infinity (fact 9.12), and the channel over an
expiration or a CC that it cannot use: each takes along what others have published there. An integer from 2^63 on
arrives as a negative one (fact 9.13). So every argument is looked at here, and the message is refused by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from .headers import BROKER_OWNED, COUNTERS, PREFIX, ROUTING
from .message import Publish
from .properties import Properties
from .wire import MAX_DEPTH, encode_content_header, encode_value

MAX_EXPIRATION = 315_360_000_000  #: ms, ten years: RabbitMQ takes no more (fact 5.5)
_SHORT = 255  #: bytes of a property, an exchange, a routing key or a header's name
_NOT_SENT = BROKER_OWNED | COUNTERS  #: what a handler that forwards its headers would forge (facts 1.6, 1.7, 1.8)
_ADDRESS = ("exchange", "routing_key")
_TEXTS = (*_ADDRESS, "message_id", "correlation_id", "content_type", "content_encoding", "reply_to", "type", "app_id")
_MOST_NAMED = 10  #: problems that an error lists


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingMessage:
    """A message to publish. None means that the property is not set; a message id is always set.

    `expiration` is in milliseconds, from 0 to 315,360,000,000; `timestamp` has a time zone, or is a number of seconds
    since the epoch; texts have at most 255 bytes. An integer priority, from 0 to 255, is written as it is: on quorum
    queues of RabbitMQ 4.3 an absent one counts as 4 (fact 12.4). Nothing is checked before the message is published.
    """

    body: bytes
    exchange: str = ""  #: "" is the default exchange, where the routing key is a queue's name
    routing_key: str = ""
    headers: Mapping[str, Any] | None = None
    priority: int | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    reply_to: str | None = None
    expiration: int | None = None
    timestamp: datetime | int | None = None
    type: str | None = None
    app_id: str | None = None


def encode_outgoing(message: object, message_id: str) -> Publish:
    """Encode an OutgoingMessage for publishing, without the headers that are amqpflow's or RabbitMQ's own.

    `message_id` is its id: the one in the message is checked, and otherwise ignored.

    Raises:
        ValueError: it cannot be sent. The text names every problem.
    """
    if not isinstance(message, OutgoingMessage):
        raise ValueError(f"it is {_kind(message)}, not an OutgoingMessage")
    if problems := listed(_problems(message)):
        raise ValueError(problems)
    headers = None
    if message.headers:
        headers = {name: value for name, value in message.headers.items() if not is_never_sent(name)} or None
    body = message.body if type(message.body) is bytes else bytes(message.body)
    properties = Properties(
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=headers,
        delivery_mode=2,
        priority=message.priority,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        expiration=None if message.expiration is None else str(int(message.expiration)),
        message_id=message_id,
        timestamp=message.timestamp,
        type=message.type,
        app_id=message.app_id,
    )
    return Publish(
        exchange=message.exchange,
        routing_key=message.routing_key,
        header=encode_content_header(properties, len(body)),
        body=body,
        identity=message_id,
    )


def listed(problems: Iterator[str]) -> str:
    """Return one text of several problems, of very many the first ones; "" of none."""
    first = list(islice(problems, _MOST_NAMED + 1))
    return "; ".join([*first[:_MOST_NAMED], "and more"] if len(first) > _MOST_NAMED else first)


def header_problems(headers: Any, argument: str = "headers") -> Iterator[str]:
    """Yield what is wrong with headers that a program sets. Each text names the header; `argument` is what they are."""
    if not isinstance(headers, Mapping):
        yield f"{argument} is {_kind(headers)}, not a mapping of names to values"
        return
    try:
        entries = list(headers.items())
    except Exception as error:
        yield f"{argument} cannot be read: {error!r}"
        return
    for name, value in entries:
        if _is_plain(name) and name not in ROUTING and (_is_plain(value) or _is_small(value)):
            continue  # most are
        if not (isinstance(name, str) and is_never_sent(name)):
            yield from _entry_problems(name, value, argument, 1)
            is_list = isinstance(value, list | tuple) and all(isinstance(each, str | bytes) for each in value)
            if name in ROUTING and not is_list:
                yield f"{argument}[{name!r}] is not a list of routing keys"


def is_never_sent(name: str) -> bool:
    """Return whether a header is amqpflow's or RabbitMQ's own, which is removed from what a program publishes."""
    return name in _NOT_SENT or name.startswith(PREFIX)


def _problems(message: OutgoingMessage) -> Iterator[str]:
    body: Any = message.body
    if not isinstance(body, bytes | bytearray):
        yield f"body is {_kind(body)}, not bytes; encode it first"
    for name in _TEXTS:
        value = getattr(message, name)
        if not _is_plain(value) and (value is not None or name in _ADDRESS):
            yield from _text_problems(value, name)
    if message.priority is not None:
        yield from _integer_problems(message.priority, "priority", 255)
    if message.expiration is not None:
        yield from _integer_problems(message.expiration, "expiration", MAX_EXPIRATION, " (milliseconds)")
    if message.timestamp is not None:
        if isinstance(message.timestamp, datetime):
            yield from _time_problems(message.timestamp, "timestamp")
        else:
            yield from _integer_problems(message.timestamp, "timestamp", (1 << 64) - 1, " (seconds), or a datetime")
    if message.headers is not None:
        yield from header_problems(message.headers)


def _text_problems(value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{where} is {_kind(value)}, not text"
        return
    if value.isascii():
        size = len(value)
    else:
        try:
            # bytes that were received and are not UTF-8 are shown as surrogates, and may be passed on
            size = len(value.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            yield f"{where} has a lone surrogate, which is not text"
            return
    if size > _SHORT:
        yield f"{where} is {size} bytes long, AMQP allows {_SHORT}"


def _integer_problems(value: Any, where: str, most: int, unit: str = "") -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int):
        yield f"{where} is {_kind(value)}, not an integer from 0 to {most}{unit}"
    elif not 0 <= value <= most:
        yield f"{where} is {_number(value)}, not from 0 to {most}{unit}"


def _time_problems(value: datetime, where: str) -> Iterator[str]:
    if value.utcoffset() is None:
        yield f"{where} is a datetime without a time zone; write datetime.now(UTC), or replace(tzinfo=UTC)"
        return
    try:
        encode_value(value)
    except (ValueError, OverflowError):
        yield f"{where} is before 1970 or after 9999"


def name_problems(name: Any, where: str) -> Iterator[str]:
    """Yield what is wrong with the name of a header in `where`."""
    if not isinstance(name, str):
        yield f"{where} has a name that is {_kind(name)}, not text"
    else:
        yield from _text_problems(name, f"the name {_shown(name)!r} in {where}")


def _entry_problems(name: Any, value: Any, where: str, depth: int) -> Iterator[str]:
    if type(name) is not str or not name.isascii() or len(name) > _SHORT:
        yield from name_problems(name, where)
    yield from _value_problems(value, where, name, depth)


def _value_problems(value: Any, outer: str, key: Any, depth: int) -> Iterator[str]:
    kind = type(value)
    if (kind is str and value.isascii()) or value is None or kind is bool or kind is bytes:
        return  # most are
    where = f"{outer}[{_shown(key)!r}]"
    if isinstance(value, bool | bytes | bytearray):
        return
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            yield f"{where} is {_number(value)}, and RabbitMQ holds integers from -2^63 to 2^63 - 1; send it as text"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{where} is {value}, over which RabbitMQ closes the connection"
    elif isinstance(value, datetime):
        yield from _time_problems(value, where)
    elif isinstance(value, str | Decimal):
        try:
            encode_value(value)
        except UnicodeEncodeError:
            yield f"{where} has a lone surrogate, which is not text"
        except (ValueError, TypeError, OverflowError) as error:
            yield f"{where}: {error}"
    elif isinstance(value, Mapping | list | tuple):
        if depth >= MAX_DEPTH:
            top, bracket, _ = outer.partition("]")
            yield f"{top}{bracket} is nested more than {MAX_DEPTH} deep"
            return
        try:
            entries = list(value.items() if isinstance(value, Mapping) else enumerate(value))
        except Exception as error:
            yield f"{where} cannot be read: {error!r}"
            return
        for name, each in entries:
            if isinstance(value, Mapping):
                yield from _entry_problems(name, each, where, depth + 1)
            else:
                yield from _value_problems(each, where, name, depth + 1)
    else:
        yield f"{where} is {_kind(value)}, for which AMQP has no type"


def _is_plain(value: Any) -> bool:
    return type(value) is str and value.isascii() and len(value) <= _SHORT


def _is_small(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _shown(name: Any) -> Any:
    return name[:40] + "..." if isinstance(name, str) and len(name) > 40 else name


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _number(value: int) -> str:
    return str(value) if abs(value) < 1 << 64 else "an integer of more than 64 bits"
