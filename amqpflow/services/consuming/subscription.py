"""The consumer of a session on its channel: whether there is one now, and with which prefetch.

In: what the session wants, and acks that have gone out. Out: basic.consume and basic.cancel, one at a time. A prefetch
is that of new consumers (basic.qos), so a wider one needs another consumer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from amqpflow.errors import AmqpflowError
from amqpflow.model.message import Delivery
from amqpflow.rabbitmq.channel import Channel

log = logging.getLogger("amqpflow.consumer")


@dataclass(kw_only=True)
class Subscription:
    """Consumes one queue on one channel, with a small prefetch until acks have gone out."""

    channel: Channel
    queue: str
    whole_prefetch: int  #: the one that it grows to
    first_prefetch: int  #: the one that it starts with, and how many acks let it grow
    keeps_order: bool  #: start with the whole prefetch, and do not cancel the consumer for a pause
    single_active: bool  #: never cancel it but to stop: another one would get the queue at once (fact 12.12)
    wanted: Callable[[bool], bool]  #: whether to consume now; its argument says whether the consumer outlasts pauses
    on_delivery: Callable[[Delivery], None]
    on_consume: Callable[[], None]  #: called before each new consumer
    on_cancel: Callable[[], None]
    on_end: Callable[[], None]  #: called when the channel ended while the consumer was changed

    def __post_init__(self) -> None:
        self._first = self.whole_prefetch if self.keeps_order else self.first_prefetch
        self._acks_to_grow = self._first
        self._growing: asyncio.Task[None] | None = None
        self._tag: str | None = None
        self._changing = asyncio.Lock()
        self._replacing = False
        self._loop = asyncio.get_running_loop()
        self.room_since = 0.0  #: the loop's time when the broker was last let assign more; only where order is kept
        self._set_prefetch(self._first)

    def _set_prefetch(self, prefetch: int) -> None:
        self.prefetch = prefetch  #: of the next consumer, and of the one that there is once it was replaced
        self.grows = prefetch < self.whole_prefetch  #: it is not the whole one

    async def consume(self) -> None:
        """Begin to consume. Raises BrokerError (404: no such queue), PermissionDeniedError, BrokerUnavailableError."""
        self.on_consume()
        # known before the broker answers: a caller that is cancelled meanwhile leaves a consumer that can be cancelled
        self._tag = f"amqpflow-{uuid4().hex[:12]}"
        await self.channel.consume(
            self.queue, self.on_delivery, prefetch=self.prefetch, on_cancel=self.on_cancel, tag=self._tag
        )
        self.room_since = self._loop.time()

    async def reconcile(self) -> None:
        """Consume, or cancel the consumer, as is wanted now."""
        async with self._changing:
            try:
                wanted = self.wanted(self.single_active or (self.keeps_order and self._tag is not None))
                wanted = wanted and not self._replacing
                if not wanted and self._tag is not None:
                    tag, self._tag = self._tag, None
                    await self.channel.cancel(tag)
                elif wanted and self._tag is None:
                    await self.consume()
            except AmqpflowError as error:
                log.debug("%s: the channel ended while the consumer was changed: %s", self.queue, error)
                self.on_end()

    async def leave(self) -> None:
        """Cancel the consumer until the next `reconcile`."""
        if self._tag is not None and not self.single_active:
            self._replacing = True
            await self.reconcile()
            self._replacing = False

    async def _replace(self) -> None:
        if not self.keeps_order:
            await self.leave()
        await self.reconcile()

    # -- prefetch

    def survived(self) -> None:
        """Count a delivery that was handled without a crash; after as many as the first prefetch, grow."""
        self._acks_to_grow -= 1
        if self._acks_to_grow <= 0:
            self.grow()

    def grow(self) -> None:
        """Replace the consumer by one with the whole prefetch, once."""
        if self._growing is None:
            self._growing = asyncio.create_task(self._grow())

    async def _grow(self) -> None:
        self._set_prefetch(self.whole_prefetch)
        await self._replace()

    @property
    def is_growing(self) -> bool:
        """Return whether the consumer is being replaced: more is about to be delivered."""
        return self._growing is not None and not self._growing.done()

    def take_one(self) -> None:
        """Let the next consumer have one delivery at a time."""
        if not self.keeps_order:
            self._set_prefetch(1)

    async def start_again(self) -> None:
        """Consume as at the start, with the first prefetch."""
        self._set_prefetch(self._first)
        self._acks_to_grow, self._growing = self._first, None
        await self._replace()

    def stop_growing(self) -> None:
        if self._growing is not None:
            self._growing.cancel()

    async def grown(self) -> None:
        """Wait until the consumer is no longer being replaced."""
        if self._growing is not None:
            await asyncio.gather(self._growing, return_exceptions=True)
