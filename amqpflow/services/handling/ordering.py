"""Handle messages of one key in order: the next one starts when the one before is settled.

In: deliveries of a session. Out: those that may start. Each session has its part, and all of a handler share the keys.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from amqpflow.delivery.incoming import Incoming
from amqpflow.model.message import Delivery
from amqpflow.model.outcome import Outcome

from .exits import ends_the_process
from .message import Message, takes_long_to_unpack
from .middleware import CallNext

KeyOf = Callable[[Message], Hashable]


class HeaderKey:
    """Takes the value of a header as the key, without reading a body."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, message: Message) -> Hashable:
        return message.headers.get(self._name)


class KeyCheck:
    """The middleware that fails a message without a computable key, as its handler would."""

    def __init__(self, key_of: KeyOf) -> None:
        self._key_of = key_of

    async def __call__(self, message: Message, call_next: CallNext) -> Outcome | None:
        hash(self._key_of(message))
        return await call_next(message)


class KeyOrdering:
    """Keep messages of one key in order, over all sessions of a handler: one delivery holds a key at a time.

    A handler that runs keeps its key when its channel is lost. The message comes again on the next session, and waits
    there until the handler has ended: two messages of a key are never handled at once by one consumer.
    """

    def __init__(
        self, key_of: KeyOf, max_body_bytes: int, *, native: bool, unpack: Callable[[Message], Awaitable[None]]
    ) -> None:
        """`unpack` undoes the encoding of a large body in a thread."""
        self._key_of = key_of
        self._max_body_bytes = max_body_bytes
        self._native = native
        self._sessions: list[SessionOrdering] = []
        self.unpack = unpack
        self.reads_bodies = not isinstance(key_of, HeaderKey)
        self.taken: set[Any] = set()  #: keys

    def of_session(self, wake: Callable[[], None]) -> SessionOrdering:
        """Return the part of one session. `wake` is called when a delivery that waited may start."""
        session = SessionOrdering(self, wake)
        self._sessions.append(session)
        return session

    def message(self, delivery: Delivery) -> Message:
        return Message(Incoming(delivery, native=self._native), max_body_bytes=self._max_body_bytes)

    def key(self, message: Message) -> Any:
        """Return the key; None when it cannot be computed: `KeyCheck` raises the same, where it is settled."""
        try:
            key = self._key_of(message)
            hash(key)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit) and ends_the_process(error):
                raise
            return None
        return key

    def free(self, key: Any) -> None:
        self.taken.discard(key)
        for session in self._sessions:
            if session.is_next(key):
                return

    def over(self, session: SessionOrdering) -> None:
        if session in self._sessions:
            self._sessions.remove(session)


class SessionOrdering:
    """Decides which deliveries of a session may start. A message without a key (None) waits for no other.

    Each delivery is looked at once, and those behind a busy key wait in a line of their own: finding the next one takes
    the same time however many wait.
    """

    def __init__(self, ordering: KeyOrdering, wake: Callable[[], None]) -> None:
        self._ordering = ordering
        self._wake = wake
        self._started: dict[int, Any] = {}  # delivery tag -> the key that it has taken
        self._handled: set[int] = set()  # of these, those whose handler runs
        self._behind: dict[Any, deque[Delivery]] = {}
        self._next: deque[tuple[Delivery, Any]] = deque()  # their key was freed
        self._count = 0
        self._unpacking: asyncio.Task[None] | None = None
        self._known: tuple[int, Any] | None = None  # the delivery tag and the key of the one that was unpacked
        self._over = False

    def __len__(self) -> int:
        return self._count

    def pick(self, waiting: deque[Delivery]) -> Delivery | None:
        """Take the first delivery that may start, if there is one: of those here, or of `waiting`."""
        if self._over:  # nothing would free the key
            return None
        taken = self._ordering.taken
        while self._next:
            delivery, key = self._next.popleft()
            if key in taken:  # by a delivery that arrived in between
                self._behind.setdefault(key, deque()).appendleft(delivery)
                continue
            self._count -= 1
            return self._start(delivery, key)
        while waiting and self._unpacking is None:
            delivery = waiting.popleft()
            if self._known is not None and self._known[0] == delivery.delivery_tag:
                key, self._known = self._known[1], None
            else:
                message = self._ordering.message(delivery)
                if self._ordering.reads_bodies and takes_long_to_unpack(message):
                    # those behind it may be of the same key: they are not looked at before
                    waiting.appendleft(delivery)
                    self._unpacking = asyncio.create_task(self._unpack(message))
                    return None
                key = self._ordering.key(message)
            if key is None:
                return delivery
            if key not in taken:
                return self._start(delivery, key)
            self._behind.setdefault(key, deque()).append(delivery)
            self._count += 1
        return None

    def _start(self, delivery: Delivery, key: Any) -> Delivery:
        self._ordering.taken.add(key)
        self._started[delivery.delivery_tag] = key
        return delivery

    async def _unpack(self, message: Message) -> None:
        await self._ordering.unpack(message)
        self._known = message.delivery_tag, self._ordering.key(message)
        self._unpacking = None
        self._wake()

    def is_next(self, key: Any) -> bool:
        """Let the first that waits for this key start; False when none does."""
        line = self._behind.get(key)
        if line is None:
            return False
        self._next.append((line.popleft(), key))
        if not line:
            del self._behind[key]
        self._wake()
        return True

    def waiting(self) -> list[Delivery]:
        """Return the deliveries that wait here and have not started, in no order."""
        found = [delivery for delivery, _ in self._next]
        for line in self._behind.values():
            found += line
        return found

    def drain(self) -> list[Delivery]:
        found = self.waiting()
        self._next.clear()
        self._behind.clear()
        self._count = 0
        return found

    def handling(self, tag: int) -> None:
        """Note that the handler of a delivery is about to be called."""
        if tag in self._started:
            self._handled.add(tag)

    def handled(self, tag: int, *, held: bool) -> None:
        """Note that the handler has ended, or was not called; `held`: the delivery is still to be settled."""
        self._handled.discard(tag)
        if not held or self._over:
            self._free(tag)

    def settled(self, tag: int) -> None:
        """Note that a delivery was settled or requeued. Its handler may still run, as when the consumer stops."""
        if tag not in self._handled:
            self._free(tag)

    def _free(self, tag: int) -> None:
        if tag in self._started:
            self._ordering.free(self._started.pop(tag))

    def over(self) -> None:
        """Start nothing any more: the session has ended. Only handlers that run keep their keys."""
        if self._over:
            return
        self._over = True
        self._ordering.over(self)
        if self._unpacking is not None:
            self._unpacking.cancel()
        for tag in list(self._started.keys() - self._handled):
            self._free(tag)
