"""Run a coroutine for a command."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_CHATTY = ("aio_pika", "aiormq", "asyncio", "httpx2", "httpcore2")


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """
    Run a coroutine, and keep libraries from printing tracebacks of errors that amqpflow reports.

    Logging that was configured stays as it is.
    """
    for name in _CHATTY:
        logger = logging.getLogger(name)
        if not logger.hasHandlers():
            logger.addHandler(logging.NullHandler())
    return asyncio.run(coroutine)
