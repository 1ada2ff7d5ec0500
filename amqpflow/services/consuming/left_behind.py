"""Report handlers that still run although their channel has ended.

The broker has their messages back, so their results are of no use. They are not cancelled, which would leave their work
half done, and they keep their slots of `concurrency`. A handler without a timeout may hang for ever. When such handlers
have all slots, no message can be started, and that is reported.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from amqpflow.model.clip import clip
from amqpflow.model.message import Delivery
from amqpflow.model.safe import safe
from amqpflow.model.units import first_few, roughly
from amqpflow.services.handling.handler import Handler, full_name
from amqpflow.services.process.waiting import set_within

from .health import Cause, ConsumerHealth

log = logging.getLogger("amqpflow.consumer")

_PATIENCE = 10.0  #: seconds after which handlers of ended channels that have all slots are reported
_EVERY = 1.0  #: seconds between two looks
_NAMED, _NAME_LENGTH = 3, 80  # messages that a text names, bytes of an id in it


@dataclass(slots=True, eq=False)
class Slot:
    task: asyncio.Task[None] | None = None
    delivery: Delivery | None = None  #: the delivery that is handled in it
    since: float = 0.0  #: the loop's time in seconds when that began


class LeftBehind:
    """Reports handlers of ended sessions of one runner. The problem of `QUEUE handlers` names them."""

    def __init__(self, handler: Handler, health: ConsumerHealth) -> None:
        self._queue, self._slots = handler.queue, handler.concurrency
        self._name = full_name(handler.function)
        self._subject = f"{handler.queue} handlers"
        self._health = health
        self._left: dict[Slot, float] = {}  # when its session ended

    def add(self, slots: list[Slot]) -> None:
        """Watch the slots of a session that has ended: handlers may still run in them."""
        now = asyncio.get_running_loop().time()
        self._left |= {each: now for each in slots if each.delivery is not None}

    async def watch(self, ended: asyncio.Event) -> None:
        """Report, until a session has ended, that handlers of earlier sessions keep its messages from starting."""
        while self._left and not ended.is_set():
            await set_within(ended, _EVERY)
            self._look(asyncio.get_running_loop().time())
        await ended.wait()

    def _look(self, now: float) -> None:
        self._left = {each: at for each, at in self._left.items() if each.task is not None and not each.task.done()}
        if len(self._left) < self._slots:
            self.forget()
        elif self._subject not in self._health.problems and now - max(self._left.values()) >= _PATIENCE:
            oldest = sorted(self._left, key=lambda each: each.since)
            text = left_text(self._name, oldest, now)
            self._health.set(self._subject, Cause.HANDLERS, text)
            log.error("%s: no message can be started: %s", self._queue, text)

    def forget(self) -> None:
        self._health.clear(self._subject, Cause.HANDLERS)


def left_text(function: str, slots: list[Slot], now: float) -> str:
    """Name the messages of handlers that were left behind, the oldest first."""
    named = first_few([f"{_message(each)} for {roughly(now - each.since)}" for each in slots], _NAMED)
    return (
        f"handler {function} still runs in all its slots for messages that RabbitMQ has taken back: {named}; "
        "give it a timeout, or restart the process"
    )


def _message(slot: Slot) -> str:
    try:
        message_id = slot.delivery.header.message_id if slot.delivery is not None else None
    except ValueError:
        message_id = None
    return f"message {clip(safe(message_id), _NAME_LENGTH)}" if message_id else "a message without id"
