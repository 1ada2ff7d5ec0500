"""Let messages wait before their handler begins: for a rate, a slot of a budget, a thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from .message import Message, is_held


class NotStarted(BaseException):
    """Raised outside a handler: the handler is not called, and its message is to be requeued."""


STOPPED = "the consumer was stopped"
GONE = "its channel ended before its handler began"


def require_held(message: Message) -> None:
    """Raise NotStarted when the broker has the delivery back: its handler must not begin."""
    if not is_held(message):
        raise NotStarted(GONE)


class Turns:
    """Messages that wait for their turn, first come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[None], Message]] = deque()
        self._closed = ""  #: why nothing waits any more

    def __bool__(self) -> bool:
        while self._waiting and self._waiting[0][0].done():
            self._waiting.popleft()
        return bool(self._waiting)

    def require_open(self) -> None:
        """Raise NotStarted after `close`."""
        if self._closed:
            raise NotStarted(self._closed)

    async def wait(self, message: Message, *, unused: Callable[[], None] | None = None) -> None:
        """Return when it is this message's turn; `unused` is called if the turn came, and the wait was cancelled.
        Raises NotStarted: the consumer stops, or does not hold the message any more.
        """
        self.require_open()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, message))
        try:
            await turn
        except BaseException:
            if unused is not None and not turn.cancelled() and turn.exception() is None:
                unused()
            raise

    def give(self) -> None:
        """Let the first one begin."""
        self._waiting.popleft()[0].set_result(None)

    def refuse_gone(self) -> None:
        """End the waits of messages that the broker has back."""
        self.refuse(GONE, gone=True)

    def refuse(self, why: str, *, gone: bool = False) -> None:
        """End the waits of all, or with `gone` of those messages that are not held any more."""
        kept: deque[tuple[asyncio.Future[None], Message]] = deque()
        for turn, message in self._waiting:
            if turn.done():
                continue
            if gone and is_held(message):
                kept.append((turn, message))
            else:
                turn.set_exception(NotStarted(why))
        self._waiting = kept

    def close(self) -> None:
        """Refuse what waits, and what comes from now on: the consumer stops."""
        self._closed = STOPPED
        self.refuse(STOPPED)
