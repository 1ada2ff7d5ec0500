"""Requeue the messages of a reading, so that the queue has its order again, and prove that a queue is empty.

On a classic queue each message goes back to its place in any case. A quorum queue puts a requeued message behind those
that were requeued earlier, and ahead of those that were never delivered. Measured on 3.10, 4.0 and 4.3, this keeps the
order:

* All messages that were ever requeued are taken before any is requeued again: to the end, or to the first message that
  was never delivered before.
* RabbitMQ 4: one nack for each consumer's deliveries, oldest first; a nack over all mixes consumers up. A
  delivery that is under way to a cancelled consumer goes back at once, so none may be under way.
* RabbitMQ 3: closing the channel. A nack of more than 32 messages there requeues them in the order of a hash table.
* A closed channel, or a lost connection, requeues in the order of the consumer tags, so tags ascend; the deliveries
  of more than 32 consumers come back in the order of a hash table, so there are fewer.
* Several channels requeue in order when each waits for the one before. A lost connection requeues the parts in any
  order, so there is one channel, except where acks behind much that is held would take too long (`holdings`).
"""

from __future__ import annotations

import asyncio

from amqpflow.errors import AmqpflowError, BrokerError
from amqpflow.rabbitmq.translate import translate

from .consumers import RETURN_TIMEOUT, QueueConsumers


class Requeueing:
    """Requeues what the consumers of a reading hold. `by_close`: closing a channel keeps the order, a nack does not."""

    def __init__(self, consumers: QueueConsumers, *, quorum: bool, by_close: bool, hold_max: float) -> None:
        self.ready_after: int | None = None  #: messages once everything was requeued
        self.unproven: str | None = None  #: why it is not known that the broker has taken every ack and nack
        self.order_kept = True
        self.other_consumers = 0  #: of the queue when the reading began
        self._consumers = consumers
        self._quorum = quorum
        self._by_close = by_close
        self._hold_max = hold_max

    async def requeue_all(self, *, is_part: bool) -> None:
        """Requeue everything, and close the channels. `unproven` says what went wrong.

        `is_part`: the caller reads on in parts until all had its turn, and restores the order by that.
        """
        consumers = self._consumers
        try:
            if not consumers.holdings.all or consumers.lost is not None:
                if consumers.holdings.latest is not None:
                    self.unproven = consumers.close_text()
                return
            consumers.raise_if_cancelled()  # everything is in the queue again, and a nack would do nothing
            consumers.only_taking = True
            consumers.arrived.clear()
            await consumers.cancel()
            await self._requeue(await self._take_the_rest(is_part=is_part))
        except AmqpflowError as error:
            self.unproven = str(error)
        finally:
            consumers.arrived.clear()
            await consumers.close_channels()

    async def prove_empty(self) -> bool:
        """Return whether a queue that counts 0 is empty. When it is not, everything is requeued, and it counts again.

        A passive declare counts 0 while a quorum queue has no leader (fact 6.15). A basic.get is answered by a leader
        alone, which has read its log by then, or it fails. A message that it brings is requeued ahead of those that
        were delivered before, which are all held meanwhile.
        """
        consumers = self._consumers
        try:
            with translate():
                got = await consumers.control.basic_get(consumers.queue)
        except BrokerError as error:
            if error.code != 405:
                raise
            # refused for a queue with a single active consumer, of which no more can be known than the count
            await consumers.open_control()
            return True
        if got.delivery_tag is None:
            return True
        await consumers.open_channel()
        consumers.only_taking, consumers.returned_before = True, bool(got.redelivered)
        ready = await self._take_the_rest(is_part=False)
        with translate():
            await consumers.control.basic_nack(got.delivery_tag)
        await self._wait_until_returned(ready + 1)
        await self._requeue(ready + 1)
        consumers.reset()
        return False

    async def _requeue(self, ready: int) -> None:
        """Requeue all held messages behind those that were requeued just now, and ahead of those never delivered."""
        consumers, counted = self._consumers, True
        for holding in consumers.holdings:
            ready += holding.tags.held
            if not self._by_close:
                holding.nack_all()
            # one question on the same channel: once it is answered, all that was sent before has been taken
            await holding.channel.queue_counts(consumers.queue)
            await holding.channel.close()
            # what the next channel holds has to come behind it
            counted = counted and await self._wait_until_returned(ready)
        if not counted:
            self.ready_after, _ = await consumers.look()

    async def _take_the_rest(self, *, is_part: bool) -> int:
        """Hold all messages that were ever requeued. Return how many are ready then, never delivered yet."""
        consumers = self._consumers
        ready, _ = await consumers.look()
        since = asyncio.get_running_loop().time()
        while self._quorum and ready and consumers.returned_before and not is_part:
            if (
                not consumers.room
                or not consumers.require_holding().has_room
                or asyncio.get_running_loop().time() > since + self._hold_max
            ):
                self.order_kept = False
                break
            await consumers.start(min(ready, consumers.size.messages(), consumers.room))
            await consumers.cancel()
            ready, _ = await consumers.look()
        return ready

    async def _wait_until_returned(self, expected: int) -> bool:
        """Return False when the queue does not count that many in time, perhaps because another consumer took some."""
        deadline = asyncio.get_running_loop().time() + RETURN_TIMEOUT
        while True:
            self.ready_after, consumers = await self._consumers.look()
            if self.ready_after >= expected:
                return True
            others = self.other_consumers and consumers  # who may have taken it already
            if others or asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.01)
