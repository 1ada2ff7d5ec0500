"""Compare exchanges and queues with the broker's over AMQP alone, and never create one by doing so.

A declare creates what is missing, so asking by declaring would leave a race. Every declare sent here has an argument
that RabbitMQ refuses when it creates and does not look at, or reports, when it compares:

* a quorum queue `x-max-priority`, a classic queue `x-delivery-limit`: unknown to the other type, 406 "invalid arg" at
  creation, and not among the arguments compared with an existing queue;
* an exchange an `alternate-exchange` that is a number: 406 "invalid type" at creation, and compared last with an
  existing exchange, whose own alternate exchange the answer then tells.

Verified on RabbitMQ 3.10.8, 4.0.5 and 4.3.6. A 406 names one difference (fact 7.1): the probe takes it over and asks
again, until nothing differs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from amqpflow.errors import AmqpflowError, BrokerError, BrokerUnavailableError
from amqpflow.model.resources import STAMP, Exchange, Queue

from .connection import Connection, connect
from .translate import translate

Thing = TypeVar("Thing", Queue, Exchange)

_ROUNDS = 24  #: differences read of one object at most
_PLAIN_TYPES = frozenset({"direct", "topic", "fanout", "headers"})
_CREATION_STOP = {"quorum": {"x-max-priority": 1}, "classic": {"x-delivery-limit": 1}}
_OTHER_TYPE = {"quorum": "classic", "classic": "quorum"}
_UNKNOWN_TYPE = "unknown exchange type"
_ALTERNATE = "alternate-exchange"

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<key>[^']+)' for (?:queue|exchange) '.*' in vhost '.*': "
    r"received (?:none|the value '(?P<given>.*)' of type '\w+'|'(?P<received>.*)') "
    r"but current is (?:none|the value '(?P<value>.*)' of type '(?P<type>\w+)'|'(?P<current>.*)')\s*$",
    re.DOTALL,
)
_INTEGERS = frozenset({"byte", "short", "signedint", "long", "unsignedbyte", "unsignedshort", "unsignedint"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """It exists and differs, but the answer does not tell how: RabbitMQ cuts its texts at 255 bytes."""

    text: str


class UnknownExchangeTypeError(Exception):
    """The broker has no such exchange type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    key: str
    current: str | None  #: None: not there
    type: str | None  #: AMQP's type when the answer names it


class Probe:
    """Asks one broker. Channels are closed by each difference found, and opened again when needed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: Any = None

    async def close(self) -> None:
        """Close the channel. Never raises: with the connection it is closed as well."""
        if self._channel is not None and not self._channel.is_closed:
            with suppress(AmqpflowError), translate():
                await self._channel.close()

    async def exchange_exists(self, name: str) -> bool:
        """Return whether the exchange exists. Raises PermissionDeniedError: 4.3 wants some permission on the name for a
        passive declare (fact 7.4).
        """
        return await self._exists(lambda channel: channel.exchange_declare(name, passive=True))

    async def queue_exists(self, name: str) -> bool:
        """Return whether the queue exists. Raises as `exchange_exists` does."""
        return await self._exists(lambda channel: channel.queue_declare(name, passive=True))

    async def queue(self, desired: Queue) -> Queue | Unreadable | None:
        """Read a queue as far as RabbitMQ compares it; None when it does not exist.

        Raises:
            PermissionDeniedError: comparing needs the configure permission.
        """
        if not await self.queue_exists(desired.name):
            return None
        queue = replace(desired, arguments=_without(desired.arguments, STAMP))
        seen: set[str] = set()
        for _ in range(_ROUNDS):
            arguments = {**queue.arguments, **_CREATION_STOP[queue.type]}
            answer = await self._ask(partial(declare_queue, queue=queue, arguments=arguments))
            if answer is None:
                return queue
            if "invalid arg" in answer:
                return None  # deleted since
            difference = _parse(answer)
            if difference is None or difference.key in seen:
                return Unreadable(text=answer)
            seen.add(difference.key)
            if difference.key in ("x-queue-type", *_CREATION_STOP[queue.type]):
                kind = difference.current if difference.key == "x-queue-type" else _OTHER_TYPE[queue.type]
                return replace(queue, arguments={**queue.arguments, "x-queue-type": kind or "classic"})
            queue = _corrected(queue, difference, ("durable", "auto_delete", "exclusive"))
        return Unreadable(text=answer or "")

    async def exchange(self, desired: Exchange) -> Exchange | Unreadable | None:
        """Read an exchange as far as RabbitMQ compares it; None when it does not exist.

        Raises:
            PermissionDeniedError: comparing needs the configure permission.
            UnknownExchangeTypeError: this broker has no such type.
        """
        if desired.type not in _PLAIN_TYPES:
            return await self._exchange_of_plugin(desired)
        if not await self.exchange_exists(desired.name):
            return None
        return await self._exchange(desired)

    async def _exchange_of_plugin(self, desired: Exchange) -> Exchange | Unreadable | None:
        # an unknown type closes the whole connection before 4.0 (fact 7.7)
        known = self._connection
        connection = await connect(known.address, name="amqpflow looking at exchange types", beside=known)
        try:
            return await Probe(connection)._exchange(desired)
        finally:
            await connection.close()

    async def _exchange(self, desired: Exchange) -> Exchange | Unreadable | None:
        exchange = replace(desired, arguments=_without(desired.arguments, STAMP))
        seen: set[str] = set()
        answer: str | None = None
        for _ in range(_ROUNDS):
            arguments = {**exchange.arguments, _ALTERNATE: 1}
            answer = await self._ask(partial(declare_exchange, exchange=exchange, arguments=arguments))
            if answer is None or "invalid type" in answer:
                return None
            if _UNKNOWN_TYPE in answer:
                raise UnknownExchangeTypeError(exchange.type)
            difference = _parse(answer)
            if difference is None or difference.key in seen:
                return Unreadable(text=answer)
            seen.add(difference.key)
            exchange = _corrected(exchange, difference, ("type", "durable", "auto_delete", "internal"))
            if difference.key == _ALTERNATE:
                return exchange
        return Unreadable(text=answer or "")

    async def _exists(self, passive_declare: Callable[[Any], Awaitable[Any]]) -> bool:
        try:
            with translate():
                await passive_declare(await self._open_channel())
        except BrokerError as error:
            # a queue whose node is down is a 404 too, with another text
            if error.missing:
                return False
            raise
        return True

    async def _ask(self, declare: Callable[[Any], Awaitable[Any]]) -> str | None:
        """Return RabbitMQ's objection, None when it has none."""
        try:
            with translate():
                await declare(await self._open_channel())
        except BrokerError as error:
            if error.code in (405, 406):
                return str(error)
            raise
        except BrokerUnavailableError as error:
            if _UNKNOWN_TYPE in str(error):
                return str(error)
            raise
        return None

    async def _open_channel(self) -> Any:
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._connection.admin_channel()
        return self._channel


async def declare_queue(channel: Any, queue: Queue, arguments: Mapping[str, Any]) -> None:
    """Declare a queue with other arguments than its own."""
    await channel.queue_declare(
        queue.name,
        durable=queue.durable,
        auto_delete=queue.auto_delete,
        exclusive=queue.exclusive,
        arguments=dict(arguments),
    )


async def declare_exchange(channel: Any, exchange: Exchange, arguments: Mapping[str, Any]) -> None:
    """Declare an exchange with other arguments than its own."""
    await channel.exchange_declare(
        exchange.name,
        exchange_type=exchange.type,
        durable=exchange.durable,
        auto_delete=exchange.auto_delete,
        internal=exchange.internal,
        arguments=dict(arguments),
    )


def _parse(text: str) -> _Difference | None:
    match = _INEQUIVALENT.search(text)
    if match is None:
        return None
    current = match["value"] if match["value"] is not None else match["current"]
    return _Difference(key=match["key"], current=current, type=match["type"])


def _corrected(thing: Thing, difference: _Difference, attributes: tuple[str, ...]) -> Thing:
    """Return the queue or exchange with what the broker has in place of what was asked for."""
    key = difference.key
    if key in attributes:
        value: Any = difference.current
        return replace(thing, **{key: value if key == "type" else value == "true"})
    arguments = _without(thing.arguments, key)
    if difference.current is not None:
        ours = None if key == _ALTERNATE else thing.arguments.get(key)
        arguments[key] = _value(difference.current, difference.type, ours)
    return replace(thing, arguments=arguments)


def _value(text: str, kind: str | None, ours: Any) -> Any:
    """Read a value out of the text, where two values of different types may look the same (fact 7.1)."""
    if kind is None and ours is not None and str(ours) != text:
        kind = "signedint" if isinstance(ours, int) and not isinstance(ours, bool) else "longstr"
    if kind is None and isinstance(ours, str):
        kind = "signedint"
    if kind in _INTEGERS and text.removeprefix("-").isdecimal():
        return int(text)
    return text == "true" if kind == "bool" else text


def _without(arguments: Any, key: str) -> dict[str, Any]:
    return {each: value for each, value in arguments.items() if each != key}
