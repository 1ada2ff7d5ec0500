"""Handlers: what may be registered, and calling one."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import sys
import traceback
import types
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from amqpflow.delivery.verdict import BadResult, CannotDecode, Decided, ErrorRecord, Failed, Verdict
from amqpflow.errors import HandlerInvalid, Undecodable
from amqpflow.model.outcome import Ack, Outcome
from amqpflow.model.routes import QueueRoutes

from .incoming import Message
from .threads import Threads

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
    is_async: bool = True  #: otherwise it runs in a thread

    def threads(self) -> Threads | None:
        """The threads that a function which is not async runs in."""
        return None if self.is_async else Threads(self.concurrency, self.queue)


def make_handler(
    queue: str,
    function: HandlerFunction,
    *,
    concurrency: int,
    prefetch: int | None,
    timeout: float | None,
    keep_stack: bool,
) -> Handler:
    """
    Check a function before it is used.

    Raises:
        HandlerInvalid: it does not take exactly one message, promises to return what is no outcome, or the numbers
            do not fit.
    """
    name = _name(function)
    if not callable(function):
        raise HandlerInvalid(f"the handler of {queue} is not callable: {function!r}")
    if concurrency < 1:
        raise HandlerInvalid(f"{name}: concurrency={concurrency}, must be at least 1")
    if prefetch is not None and not concurrency <= prefetch <= 65_535:
        raise HandlerInvalid(f"{name}: prefetch={prefetch}, must be from concurrency ({concurrency}) to 65535")
    if timeout is not None and timeout <= 0:
        raise HandlerInvalid(f"{name}: timeout={timeout}, must be more than 0 seconds")
    try:
        inspect.signature(function).bind(object())
    except TypeError as error:
        raise HandlerInvalid(f"{name} cannot be called with one message: {error}") from None
    except ValueError:
        pass  # a builtin without a signature
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise HandlerInvalid(
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
        is_async=_is_async(function),
    )


async def call(
    handler: Handler, message: Message, routes: QueueRoutes, threads: Threads | None, stopping: asyncio.Event
) -> Verdict:
    """
    Run the handler on a message and say what came of it.

    A handler that runs into its timeout has failed with TimeoutError. A thread cannot be stopped: its timed-out call
    runs on, and may overlap the retry. Whatever else a handler raises is its failure, a BaseException too: gevent's
    timeouts are some, and a delivery that nobody settles would be held for ever.

    Args:
        threads: where to run a function that is not async, from `Handler.threads`.
        stopping: set before the consumer cancels its handlers; any other cancellation is the handler's own.

    Raises:
        asyncio.CancelledError: the consumer is being stopped; nothing is decided.
        KeyboardInterrupt, SystemExit: the process is to end.
    """
    if threads is not None:
        await threads.acquire()
    limit = asyncio.timeout(handler.timeout)  # its clock starts here
    try:
        async with limit:
            if threads is None:
                result = await handler.function(message)  # type: ignore[misc]
            else:
                result = await threads.run(handler.function, message)
            if inspect.isawaitable(result):
                result = await result
    except Outcome as outcome:
        return Decided(outcome=outcome, error=_cause(outcome, handler))
    except Undecodable as error:
        return CannotDecode(error=error_record(error, handler))
    except TimeoutError as error:
        if limit.expired():
            late = TimeoutError(f"the handler ran longer than {handler.timeout:g} s")
            error = late.with_traceback(error.__traceback__)
        return _failed(error, handler, routes)
    except asyncio.CancelledError as error:
        if stopping.is_set():
            raise
        while (task := asyncio.current_task()) is not None and task.cancelling():
            task.uncancel()
        return _failed(error, handler, routes)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return _failed(error, handler, routes)
    if result is None:
        return Decided(outcome=Ack())
    if isinstance(result, Outcome):
        return Decided(outcome=result)
    return BadResult(detail=f"{_name(handler.function)} returned {type(result).__name__}, which is no outcome")


def _failed(error: BaseException, handler: Handler, routes: QueueRoutes) -> Failed:
    return Failed(error=error_record(error, handler), matches=_matches(error, routes))


def error_record(error: BaseException, handler: Handler) -> ErrorRecord:
    """An exception as the failure record keeps it."""
    kind = type_name(type(error))
    try:
        message = str(error)
    except Exception as broken:
        message = f"<str() of the error raised {type(broken).__name__}>"
    where = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        where = f"{frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}"
    digest = hashlib.sha256("\0".join((handler.queue, kind, where)).encode("utf-8", "backslashreplace"))
    stack = None
    if handler.keep_stack:
        stack = "".join(traceback.format_tb(error.__traceback__))
    return ErrorRecord(type=kind, message=message, stack=stack, fingerprint=digest.hexdigest()[:16])


def type_name(kind: type) -> str:
    """ValueError, httpx.ConnectError: as a rule would name it."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _matches(error: BaseException, routes: QueueRoutes) -> frozenset[str]:
    names = {name for rule in routes.rules for name in rule.errors}
    return frozenset(name for name in names if any(_bears(kind, name) for kind in type(error).__mro__))


def _bears(kind: type, name: str) -> bool:
    if name in (kind.__name__, kind.__qualname__, f"{kind.__module__}.{kind.__qualname__}"):
        return True
    # pydantic.ValidationError lives in another module than the one that people import it from
    module, _, attribute = name.rpartition(".")
    try:
        return bool(module) and getattr(sys.modules.get(module), attribute, None) is kind
    except Exception:
        return False  # a module that loads its names lazily, and cannot


def _cause(outcome: Outcome, handler: Handler) -> ErrorRecord | None:
    cause = outcome.__cause__ or (None if outcome.__suppress_context__ else outcome.__context__)
    return error_record(cause, handler) if cause is not None else None


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _check_return(name: str, function: Any) -> None:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        annotation = get_type_hints(target).get("return", Any)
    except Exception:
        return  # a name that only a type checker resolves: decided at run time, as a bad result
    for kind in _members(annotation):
        allowed = kind in (Any, None, type(None), NoReturn) or getattr(kind, "__name__", "") == "Never"
        if not allowed and not (isinstance(kind, type) and issubclass(kind, Outcome)):
            raise HandlerInvalid(
                f"{name} says that it returns {inspect.formatannotation(annotation)}",
                hint="a handler returns None, Ack, Retry, Park or Discard; anything else would be parked",
            )


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for each in get_args(annotation) for member in _members(each))
    return (annotation,)
