"""The one place where tests wait."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any


async def until(condition: Callable[[], Any | Awaitable[Any]], *, timeout: float = 30.0, every: float = 0.01) -> Any:
    """Ask until the answer is true, and return it.

    Args:
        condition: a function or coroutine function.
        timeout: seconds after which the test fails, with the last answer.
        every: seconds between two questions.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {inspect.getsource(condition).strip()}, but {answer!r}")
        await asyncio.sleep(every)
