"""The consumer of a soak, for `amqpflow run service:consumer`. A message's id says what its handler does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any

from amqpflow import Consumer, Message, Park

_LEDGER = os.open(os.environ["SOAK_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

consumer = Consumer(os.environ["SOAK_TOPOLOGY"])


def note(what: str, message: Message) -> None:
    """Write a line down at once: C when the handler is called, D when it has finished with the message."""
    line = f"{what} {time.time():.3f} {message.queue} {message.message_id} {message.attempt} {message.hop}\n"
    os.write(_LEDGER, line.encode())


def act(message: Message) -> tuple[float, Any]:
    """Do what the message says; return for how long its handler waits, and what it returns."""
    note("C", message)
    kind, first = str(message.message_id).partition("-")[0], message.attempt == 1
    body = message.body
    assert body == b"{}", "a bomb that went off"
    if kind == "retry" and message.attempt < 3:
        raise ConnectionError("not yet")
    if kind == "exhaust":
        raise KeyError("never")
    if kind == "long":
        raise RuntimeError("a long text " * 20_000)
    if kind == "group":
        raise ExceptionGroup("of a task group", [ValueError("not valid")])
    if kind == "park":
        raise Park("as it was told")
    if kind == "wrong":
        return 0.0, 7
    if kind == "exit" and first:
        sys.exit("as a script would")
    if kind == "block":
        time.sleep(1)
    if kind == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang" and first:
        return 4.0, None
    if kind == "stuck" and first:
        return 20.0, None
    return 0.02, None


async def handle(message: Message) -> None:
    seconds, result = act(message)
    await asyncio.sleep(seconds)
    if result is None:
        note("D", message)
    return result  # type: ignore[no-any-return]


def handle_in_a_thread(message: Message) -> None:
    seconds, result = act(message)
    time.sleep(seconds)
    if result is None and seconds < 1:  # what was late has been given up
        note("D", message)
    return result  # type: ignore[no-any-return]


for _queue in os.environ["SOAK_QUEUES"].split():
    consumer.add_handler(
        _queue,
        handle_in_a_thread if _queue == "soak.threads" else handle,
        concurrency=10,
        prefetch=40,
        timeout=2,
    )
