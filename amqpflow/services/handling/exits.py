"""Tell whether SystemExit and KeyboardInterrupt ask the process to end, or are the mistake of a handler.

A handler that calls a tool which calls `sys.exit` has failed, as one that raises any other exception. A signal handler
of the application that raises them in the middle of a handler means the process.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import traceback
from collections.abc import Iterator
from contextvars import Context, ContextVar, copy_context
from types import CodeType, TracebackType
from typing import Any

from amqpflow.model.clip import MESSAGE_MAX, clip

Exit = SystemExit | KeyboardInterrupt

_handling: ContextVar[bool] = ContextVar("amqpflow handling", default=False)


def ends_the_process(error: Exit) -> bool:
    """Return whether an exit that was raised inside a handler came from outside of it: from a signal.

    A signal handler written in Python leaves its frame in the traceback. Python's own for SIGINT leaves none, so while
    that one is installed every KeyboardInterrupt counts as the user's.
    """
    if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return True
    codes = {code for each in signal.valid_signals() for code in _codes(signal.getsignal(each))}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def _codes(handler: Any) -> Iterator[CodeType]:
    while isinstance(handler, functools.partial):
        handler = handler.func
    handler = getattr(handler, "__func__", handler)
    code = getattr(handler, "__code__", None)
    if code is None and callable(handler):
        code = getattr(type(handler).__call__, "__code__", None)
    if isinstance(code, CodeType):
        yield code


def handling_context() -> Context:
    """Return a context for the tasks that call handlers: `left_a_handler_s_task` knows what they start by it."""
    context = copy_context()
    context.run(_handling.set, True)
    return context


def left_a_handler_s_task(error: Exit) -> bool:
    """Return whether an exit that stopped the event loop came out of a task that a handler had started.

    asyncio lets these two exceptions out of `run_until_complete`, whichever task raised them. The task has kept it as
    its result too, so whatever awaits that task gets it.
    """
    at: TracebackType | None = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code is asyncio.Handle._run.__code__:
            context = getattr(at.tb_frame.f_locals.get("self"), "_context", None)
            return context is not None and bool(context.get(_handling, False))
        at = at.tb_next
    return False


def described(error: BaseException) -> str:
    """Return an exit as a line of a log: SystemExit: why (tool.py:10)."""
    text = clip(str(error), MESSAGE_MAX)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"
