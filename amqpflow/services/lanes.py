"""Messages of one key one after the other: the next one starts when the one before is settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from amqpflow.delivery.incoming import Incoming
from amqpflow.model.message import Delivery
from amqpflow.model.outcome import Outcome

from .exits import ends_the_process
from .incoming import Message
from .middleware import CallNext

KeyOf = Callable[[Message], Hashable]


def key_function(order_by: str | KeyOf) -> KeyOf:
    """`order_by` as a function: a header's name gives its value."""
    if isinstance(order_by, str):
        name = order_by
        return lambda message: message.headers.get(name)
    return order_by


class KeyCheck:
    """The middleware that fails a message whose key cannot be told, as its handler would."""

    def __init__(self, key_of: KeyOf) -> None:
        self._key_of = key_of

    async def __call__(self, message: Message, call_next: CallNext) -> Outcome | None:
        hash(self._key_of(message))
        return await call_next(message)


class Lanes:
    """Which of the deliveries that wait may start. A message without a key (None) waits for no other."""

    def __init__(self, key_of: KeyOf, max_body_bytes: int, *, native: bool) -> None:
        self._key_of = key_of
        self._native = native
        self._max_body_bytes = max_body_bytes
        self._keys: dict[int, Any] = {}  # of what waits and what has started, by delivery tag
        self._busy: dict[Any, int] = {}  # key -> the delivery tag that has started

    def pick(self, waiting: deque[Delivery]) -> Delivery | None:
        """Take out the first that may start, if there is one."""
        for index, delivery in enumerate(waiting):
            key = self._key(delivery)
            if key is None or key not in self._busy:
                del waiting[index]
                if key is not None:
                    self._busy[key] = delivery.delivery_tag
                return delivery
        return None

    def _key(self, delivery: Delivery) -> Any:
        tag = delivery.delivery_tag
        if tag not in self._keys:
            try:
                incoming = Incoming(delivery, native=self._native)
                key = self._key_of(Message(incoming, max_body_bytes=self._max_body_bytes))
                hash(key)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt | SystemExit) and ends_the_process(error):
                    raise
                key = None  # KeyCheck raises the same, where it is settled
            self._keys[tag] = key
        return self._keys[tag]

    def settled(self, tag: int) -> bool:
        """Whether another one may start now."""
        key = self._keys.pop(tag, None)
        if key is None or self._busy.get(key) != tag:
            return False
        del self._busy[key]
        return True
