"""Name the calls in threads that still run although nothing waits for them: in the log and in `Consumer.problems`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from amqpflow.model.clip import clip
from amqpflow.model.safe import safe
from amqpflow.model.units import first_few
from amqpflow.services.handling.handler import Handler, full_name
from amqpflow.services.handling.thread_pool import Call, Threads

from .health import Cause, ConsumerHealth

log = logging.getLogger("amqpflow.consumer")

_NAMED, _NAME_LENGTH = 3, 80  # calls that a text names, bytes of a message id in it


class Overdue:
    """Reports the overdue calls of one handler.

    Args:
        health: the problem of `QUEUE threads` names the calls. The queue has it too when nothing can be called any
            more; until then it is consumed.
        on_exhausted: called when nothing can be called any more.
    """

    def __init__(
        self, threads: Threads, handler: Handler, health: ConsumerHealth, *, on_exhausted: Callable[[], None]
    ) -> None:
        self.threads = threads
        self._queue = handler.queue
        self._subject = f"{handler.queue} threads"
        self._name = full_name(handler.function)
        self._health = health
        self._on_exhausted = on_exhausted
        threads.on_overdue, threads.on_ended = self._overdue, self._ended

    @property
    def text(self) -> str:
        return overdue_text(self._name, self.threads.overdue, self.threads.most)

    def _overdue(self, call: Call) -> None:
        text = self.text
        self._health.set(self._subject, Cause.THREADS, text)
        if not self.threads.exhausted:
            log.warning("%s: a handler still runs in its thread: %s; %s", self._queue, call_text(call), text)
            return
        self._health.set(self._queue, Cause.THREADS, text)
        log.error("%s: no handler can be called: %s", self._queue, text)
        self._on_exhausted()

    def _ended(self, call: Call) -> None:
        ran = time.time() - call.since
        log.warning("%s: an overdue handler ended after %.0f s: %s", self._queue, ran, call_text(call))
        if self.threads.overdue:
            self._health.set(self._subject, Cause.THREADS, self.text)
        else:
            self.forget()

    def forget(self) -> None:
        """End the report: the consumer has stopped, or no call is overdue."""
        self._health.clear(self._subject, Cause.THREADS)


def overdue_text(function: str, calls: Sequence[Call], most: int) -> str:
    """Name the overdue calls of a handler, the oldest first; `function` is its name, `most` how many there may be."""
    named = first_few([call_text(each) for each in calls], _NAMED)
    if len(calls) >= most:
        return (
            f"stuck: all {most} threads of {function} are overdue and cannot be stopped: {named}; "
            "restart the process, and give what the handler waits for a timeout of its own"
        )
    return f"{len(calls)} of at most {most} threads of {function} are overdue and cannot be stopped: {named}"


def call_text(call: Call) -> str:
    """Return a call as `message m1 since 2026-11-30 11:03:02 UTC`."""
    message_id = call.message.message_id
    name = f"message {clip(safe(message_id), _NAME_LENGTH)}" if message_id else "a message without an id"
    return f"{name} since {datetime.fromtimestamp(call.since, UTC):%Y-%m-%d %H:%M:%S UTC}"
