"""Wrap handlers in middlewares. Ours, such as the timeout, are of the same kind.

A chain is made once, when the consumer starts; without middlewares and a timeout a handler is called directly.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from amqpflow.errors import InvalidHandlerError
from amqpflow.model.outcome import Outcome
from amqpflow.model.units import format_duration

from .exception_groups import has_error, meaning
from .message import Message, call_late
from .thread_pool import Threads
from .turns import require_held

_TIMELY = 0.1  #: of a timeout: a handler that ends later than this did not end when it was cancelled


class CallNext(Protocol):
    """Calls the next middleware, and in the end the handler."""

    async def __call__(self, message: Message, /) -> Outcome | None: ...


class Middleware(Protocol):
    """Runs around a handler: an async function or an object that is called like one.

    `await call_next(message)` calls the next one and returns the outcome that the handler returned or raised; None
    means `Ack`. An exception is a failure. A middleware may return another outcome, raise, or not call the
    handler at all; its result is settled like the handler's. Context variables that it sets
    are seen by the handler, in a thread as well. It runs in the handler's `timeout`.
    """

    async def __call__(self, message: Message, call_next: CallNext) -> Outcome | None: ...


class Timeout:
    """Fails the inner call with TimeoutError after some seconds. `name` is the handler's."""

    def __init__(self, seconds: float, name: str) -> None:
        self.seconds = seconds
        self._name = name

    async def __call__(self, message: Message, call_next: CallNext) -> Outcome | None:
        limit = asyncio.timeout(self.seconds)
        began = time.monotonic()
        try:
            async with limit:
                return await call_next(message)
        except TimeoutError as error:
            if not limit.expired():
                raise
            call_late(message)
            # where the handler was when its time ended; no local of this frame, which is in the traceback
            raise self._late(time.monotonic() - began).with_traceback(
                (error.__cause__ or error).__traceback__
            ) from None

    def _late(self, ran: float) -> TimeoutError:
        text = f"{self._name} ran longer than its timeout of {format_duration(max(1, round(self.seconds * 1000)))}"
        if ran > self.seconds + max(1.0, self.seconds * _TIMELY):
            # only then: it is the same text each time, by which failures are counted
            text += f": {format_duration(round(ran) * 1000)}, since it blocks the event loop or resists being cancelled"
        return TimeoutError(text)


class ThreadPlace:
    """Calls a handler that is not async in a thread, which is reserved before the clock of its timeout starts: a
    message that waits for a thread has not begun, and cannot be late.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._reserved: ContextVar[list[bool] | None] = ContextVar("amqpflow thread", default=None)

    async def reserve(self, message: Message, call_next: CallNext) -> Outcome | None:
        """Reserve a thread: the middleware outside the timeout."""
        await self._threads.acquire(message)
        place = [True]
        token = self._reserved.set(place)
        try:
            return await call_next(message)
        finally:
            self._reserved.reset(token)
            if place:  # a middleware did not call the handler
                self._threads.release()

    async def run(self, message: Message) -> Any:
        """Run the function in the reserved thread: the innermost call."""
        place = self._reserved.get()
        if place:
            place.clear()
        else:  # a middleware calls it again
            await self._threads.acquire(message)
        result = await self._threads.run(message)
        return await result if inspect.isawaitable(result) else result


async def begin(message: Message, call_next: CallNext) -> Outcome | None:
    """The middleware behind what a message waited for, as a rate: what the broker has back by now does not begin."""
    require_held(message)
    return await call_next(message)


def chain(
    function: Callable[[Message], Any],
    *,
    threads: Threads | None,
    timeout: float | None,
    middlewares: Sequence[Middleware],
    outer: Sequence[Middleware] = (),
    name: str = "the handler",
) -> Callable[[Message], Awaitable[Any]]:
    """Return what calls a handler: `outer`, a thread's place, the timeout, the middlewares in their order, the handler.

    Args:
        function: async, or run in one of `threads`.
        timeout: seconds for the handler and its middlewares.
        name: the handler's, for the text of a TimeoutError.
    """
    around: list[Middleware] = [*outer]
    if threads is not None:
        place = ThreadPlace(threads)
        function = place.run
        around.append(place.reserve)
    if around:
        around.append(begin)
    if timeout is not None:
        around.append(Timeout(timeout, name))
    around += middlewares
    if not around:
        return function
    inner = _outcomes_returned(function)
    for each in reversed(around):
        inner = _bound(each, inner)
    return inner


def _outcomes_returned(function: Callable[[Message], Awaitable[Any]]) -> CallNext:
    """An outcome that was raised is returned: for a middleware, what is raised is a failure and nothing else. So is one
    that a group means, if no error is in the group, which the failure record is to name.
    """

    async def call(message: Message) -> Any:
        require_held(message)  # a middleware may have waited
        try:
            return await function(message)
        except Outcome as outcome:
            return outcome
        except BaseExceptionGroup as group:
            if isinstance(meaning(group), Outcome) and not has_error(group):
                return meaning(group)
            raise

    return call


def _bound(middleware: Middleware, call_next: CallNext) -> CallNext:
    async def call(message: Message) -> Outcome | None:
        return await middleware(message, call_next)

    return call


def check_middleware(middleware: Any) -> Any:
    """Return the middleware, if it is one. Raises InvalidHandlerError."""
    if isinstance(middleware, type):
        raise InvalidHandlerError(f"{middleware.__qualname__} is a class; a middleware is an object of it")
    called = middleware if inspect.isroutine(middleware) else getattr(type(middleware), "__call__", None)  # noqa: B004
    if not (inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(middleware)):
        raise InvalidHandlerError(
            f"the middleware {middleware!r} is not async", hint="async def middleware(message, call_next): ..."
        )
    try:
        inspect.signature(middleware).bind(object(), object())
    except TypeError as error:
        raise InvalidHandlerError(f"{middleware!r} cannot be called with a message and call_next: {error}") from None
    return middleware
