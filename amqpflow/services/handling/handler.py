"""Check a handler before it is registered."""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from amqpflow.delivery.breaker import Breaker
from amqpflow.errors import InvalidHandlerError
from amqpflow.model.outcome import Outcome

from .message import Message
from .middleware import Middleware, check_middleware
from .ordering import KeyOf
from .thread_pool import Threads

HandlerFunction = Callable[[Message], Awaitable[Outcome | None] | Outcome | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A function registered for a work queue."""

    queue: str
    function: HandlerFunction
    concurrency: int  #: how many run at once
    prefetch: int  #: how many deliveries the broker hands out before the first is settled
    timeout: float | None  #: seconds
    keep_stack: bool = False
    middlewares: tuple[Middleware, ...] = ()  #: outermost first
    breaker: Breaker | None = None
    rate: float | None = None  #: calls a second
    order_by: KeyOf | None = None
    weight: float = 1.0  #: of its share in the consumer's concurrency
    is_async: bool = True  #: otherwise it runs in a thread

    def threads(self) -> Threads | None:
        return None if self.is_async else Threads(self.function, self.concurrency, self.queue)


def make_handler(
    queue: str,
    function: HandlerFunction,
    *,
    concurrency: int,
    prefetch: int | None,
    timeout: float | None,
    keep_stack: bool,
    middlewares: Sequence[Middleware] = (),
    breaker: Breaker | None = None,
    rate: float | None = None,
    order_by: KeyOf | None = None,
    weight: float = 1.0,
) -> Handler:
    """Check a function before it is used. Raises InvalidHandlerError: it is no handler, or the numbers do not fit."""
    name = name_of(function)
    if not callable(function):
        raise InvalidHandlerError(f"the handler of {queue} is not callable: {function!r}")
    if concurrency < 1:
        raise InvalidHandlerError(f"{name}: concurrency={concurrency}, must be at least 1")
    if prefetch is not None and not concurrency <= prefetch <= 65_535:
        raise InvalidHandlerError(f"{name}: prefetch={prefetch}, must be from concurrency ({concurrency}) to 65535")
    if timeout is not None and timeout <= 0:
        raise InvalidHandlerError(f"{name}: timeout={timeout}, must be more than 0 seconds")
    try:
        inspect.signature(function).bind(object())
    except TypeError as error:
        raise InvalidHandlerError(f"{name} cannot be called with one message: {error}") from None
    except ValueError:
        pass  # a builtin without a signature
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidHandlerError(
            f"{name} is a generator: its body would never run", hint="a handler returns, it does not yield"
        )
    _check_return(name, function)
    return Handler(
        queue=queue,
        function=function,
        concurrency=concurrency,
        prefetch=prefetch or concurrency,
        timeout=timeout,
        keep_stack=keep_stack,
        middlewares=tuple(map(check_middleware, middlewares)),
        breaker=breaker,
        rate=rate,
        order_by=order_by,
        weight=weight,
        is_async=_is_async(function),
    )


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def name_of(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def full_name(function: Any) -> str:
    """Return the name of a handler with its module, as a log names it; of an object, that of its class."""
    while isinstance(function, partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _check_return(name: str, function: Any) -> None:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        annotation = get_type_hints(target).get("return", Any)
    except Exception:
        return  # a name that only a type checker resolves: decided at run time, as a bad result
    for kind in _members(annotation):
        allowed = kind in (Any, None, type(None), NoReturn) or getattr(kind, "__name__", "") == "Never"
        if not allowed and not (isinstance(kind, type) and issubclass(kind, Outcome)):
            raise InvalidHandlerError(
                f"{name} is annotated to return {inspect.formatannotation(annotation)}",
                hint="a handler returns None, Ack, Retry, Pause, Park or Discard; anything else would be parked",
            )


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for each in get_args(annotation) for member in _members(each))
    return (annotation,)
