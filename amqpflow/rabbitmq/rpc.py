"""Calls to the broker that run to their end when their callers are cancelled.

aiormq closes a channel when a call on it is cancelled while its answer is due. The deliveries that the channel holds go
back to their queue then, with all acks that the broker has not applied, and a caller is cancelled for reasons that have
nothing to do with the channel: a task is not needed any more, a handler's time is up, Ctrl-C. So a call runs in a task
of its own here. A caller that is cancelled leaves it alone, its answer is read and dropped, and the next call on the
channel waits for it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any

from aiormq.exceptions import ChannelInvalidStateError

from amqpflow.errors import BrokerUnavailableError
from amqpflow.model.queue_stats import QueueCounts

from .translate import translate


class RpcChannel:
    """An aiormq channel whose coroutines are not cancelled with their callers."""

    def __init__(self, amqp: Any) -> None:
        self._amqp = amqp

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._amqp, name)
        if not inspect.iscoroutinefunction(found):
            return found

        @wraps(found)
        async def call(*args: Any, **options: Any) -> Any:
            return await _to_its_end(found(*args, **options))

        return call

    async def queue_counts(self, queue: str) -> QueueCounts:
        """Count a queue's ready messages and its consumers, by a passive declare. A refusal closes the channel.

        Raises:
            BrokerError: `missing` when there is no such queue; else its node is down, or it is exclusive elsewhere.
            PermissionDeniedError, BrokerUnavailableError.
        """
        with translate():
            answer = await self.queue_declare(queue, passive=True)
        return QueueCounts(ready=int(answer.message_count), consumers=int(answer.consumer_count))


async def answer_or_end(call: Awaitable[Any], within: float, abort: Callable[[str], None]) -> None:
    """Wait for the broker's answer; after `within` seconds call `abort`, which is to end the whole connection. A
    consumer that may or may not be there cannot be cancelled or left alone, and the end of its connection settles it.

    Raises:
        BrokerUnavailableError: there was no answer in time, or the channel is closed. Else what the broker answered.
    """
    with translate():
        try:
            async with asyncio.timeout(within):
                await call
        except TimeoutError:
            silence = f"the broker gave no answer within {within:g} s"
            abort(silence)
            raise BrokerUnavailableError(f"{silence}: the connection is closed") from None


async def _to_its_end(call: Coroutine[Any, Any, Any]) -> Any:
    running = asyncio.ensure_future(call)
    running.add_done_callback(retrieve)
    await asyncio.wait((running,))
    if running.cancelled():
        # the channel or the connection was closed meanwhile, which aiormq says by cancelling what runs on it
        raise ChannelInvalidStateError("the channel was closed before the answer")
    return running.result()


def retrieve(running: asyncio.Future[Any]) -> None:
    """Retrieve the error of a future that is not awaited any more: asyncio would log it as forgotten."""
    if not running.cancelled():
        running.exception()
