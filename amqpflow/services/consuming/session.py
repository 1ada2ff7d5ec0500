"""Consume on one channel: deliveries come in, each is settled at most once, and on this channel only.

A crash counts against the delivery limit of everything that is unacked then (fact 3.8). So a session starts with a
small prefetch and widens it once acks have gone out, and a message that was in several crashes is handled alone
(`delivery/crashes.py`).

When a consumer is cancelled, deliveries that are on their way return to the queue before or behind those that are
requeued then: in another order. So where an order must be kept, the consumer begins with its whole prefetch, and a
pause does not cancel it but holds what arrives.

A session ends with its channel. The broker then has all unsettled deliveries back, whatever their handlers return: a
tag means nothing on another channel (facts 9.2, 12.2).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from amqpflow.delivery.ending import CANCELLED, Held, HeldState
from amqpflow.delivery.incoming import Incoming, may_have_been_lost
from amqpflow.model.message import Delivery
from amqpflow.rabbitmq.channel import Channel
from amqpflow.services.handling.ordering import KeyOrdering
from amqpflow.services.process.waiting import first_of, wake

from .admission import Admission
from .subscription import Subscription

log = logging.getLogger("amqpflow.consumer")

_LEAVING = 1.0  #: seconds for the broker to confirm what is moved at the end of a stop
_LONGEST_TURN = 0.005  #: seconds that handlers may run without the event loop, and acks wait to be written

_ON_ITS_WAY = 0.2  #: seconds in which a message arrives that a new consumer or an ack has made room for
_LONGEST_ARRIVAL = 1.0  #: seconds to wait for such messages before a consumer is cancelled, all in all


class Session:
    """Hands out the deliveries of one handler's queue on one channel, and settles them."""

    def __init__(
        self,
        channel: Channel,
        queue: str,
        *,
        prefetch: int,
        first_prefetch: int,
        ordering: KeyOrdering | None = None,
        single_active: bool = False,
        nack_counts: bool = False,
        is_suspect: Callable[[Delivery], bool] = lambda _: False,
        on_suspect: Callable[[], object] = lambda: None,
        on_end: Callable[[Sequence[Delivery]], object] = lambda _: None,
        on_leave: Callable[[Delivery], asyncio.Task[None] | None] = lambda _: None,
    ) -> None:
        self.channel = channel
        self.queue = queue
        self.ended = asyncio.Event()  #: the channel is closed, or the server cancelled the consumer
        self.over = asyncio.Event()  #: ended, or about to: nothing waits for it any more
        self.cancelled_by_server = False
        self.why_ended = ""  #: in words, once it is known; see `why`
        #: the prefetch does not grow, and a pause holds what arrives
        self.keeps_order = single_active or ordering is not None
        self._ordering = ordering.of_session(self._wake) if ordering is not None else None
        self.nack_counts = nack_counts  #: requeueing counts as a crash does, before RabbitMQ 4.3
        self._is_suspect, self._on_suspect, self._on_end, self._on_leave = is_suspect, on_suspect, on_end, on_leave
        self._excused: set[int] = set()
        self.aside: dict[int, asyncio.Event] = {}  #: suspects that wait for `longer`, by tag, and what ends the wait
        self.longer: set[int] = set()  #: tags of deliveries that still ran when one of them was to be alone
        self.admission = Admission()  #: when that is shut, `rest` tells the broker
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, float] = {}  # what is not settled, by tag: when it arrived
        self._waiting: deque[Delivery] = deque()  # no handler has started them
        self._started: dict[int, Delivery] = {}  # those of `_held` that were handed out
        self._unsettled: set[int] = set()  # and those whose handler has ended, while their publish is awaited
        self._idle: deque[asyncio.Future[None]] = deque()  # the waits in `next`
        self._off_hands: dict[int, asyncio.Future[None]] = {}  # the waits for a delivery to be settled or held, by tag
        self._delivered_before = 0  # the last tag that an earlier consumer of this channel was handed
        self._last_tag = 0
        self._waking = False  # one of them was woken and has not run yet: it wakes the next if there is more to do
        self._dismissed = False
        self._turn_began = 0.0  # the loop's time in seconds; 0.0 when nothing was handed out in this turn
        self._settled = asyncio.Event()
        self._stopping = False
        self._subscription = Subscription(
            channel=channel,
            queue=queue,
            whole_prefetch=prefetch,
            first_prefetch=first_prefetch,
            keeps_order=self.keeps_order,
            single_active=single_active,
            wanted=self._wants_consumer,
            on_delivery=self._take,
            on_consume=self._consuming_again,
            on_cancel=self._cancelled,
            on_end=self._end,
        )
        channel.on_close(self._end)

    # -- taking

    async def start(self) -> None:
        """Begin to consume, unless it was shut before. Raises as `Subscription.consume`."""
        if not self.admission.paused:
            await self._subscription.consume()

    def _consuming_again(self) -> None:
        self._delivered_before = self._last_tag

    def _wants_consumer(self, stays: bool) -> bool:
        if self._stopping or self.ended.is_set():
            return False
        return stays or self.admission.wants_more(self._unstarted)

    def _take(self, delivery: Delivery) -> None:
        self._last_tag = delivery.delivery_tag
        self._held[delivery.delivery_tag] = self._loop.time()
        suspected = may_have_been_lost(delivery) and self._is_suspect(delivery)
        if suspected and delivery.redelivered and not self.keeps_order:
            # before others start that may kill it: messages that came back together arrive together
            self._waiting.appendleft(delivery)
        else:
            self._waiting.append(delivery)
        if suspected:
            self._on_suspect()
        if self._idle and not self._waking:
            self._wake()

    def _wake(self) -> None:
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                self._waking = True
                waiter.set_result(None)
                return

    def _cancelled(self) -> None:
        # after a cancel by the server its acks have no effect, and RabbitMQ 4.3 may deliver to the tag again
        self.cancelled_by_server = True
        self._end()

    def _end(self) -> None:
        first = not self.ended.is_set()
        self.ended.set()
        self.over.set()
        self._settled.set()
        for waiter in list(self._off_hands.values()):
            wake(waiter)
        if self._ordering is not None:
            self._ordering.over()
        if first:
            self._on_end(tuple(self.unsettled_deliveries()))

    async def next(self) -> Delivery | None:
        """Return the next delivery to handle, once the session is not paused; None when the session is over.

        Returns at once while there is something to do: one task handles message after message as long as its handler
        does not wait for anything. Now and then it yields to other tasks.
        """
        admission = self.admission
        while True:
            if self._turn_is_over():
                await asyncio.sleep(0)
                continue  # look again: else each of many tasks would handle one more in this turn
            if admission.running and not self._stopping:
                while self._unstarted:
                    delivery = self._waiting.popleft() if self._ordering is None else self._ordering.pick(self._waiting)
                    if delivery is None:
                        break
                    if delivery.delivery_tag not in self._held or self.ended.is_set():
                        continue
                    if admission.single:
                        admission.started(delivery.delivery_tag)
                    elif self._waiting and self._idle and not self._waking:
                        self._wake()
                    self._started[delivery.delivery_tag] = delivery
                    return delivery
            if self._dismissed:
                return None
            waiter = self._loop.create_future()
            self._idle.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._waking = False
                    self._wake()
                raise
            self._waking = False

    @property
    def _unstarted(self) -> int:
        """Count the deliveries that wait, for a handler or behind another one of their key."""
        return len(self._waiting) if self._ordering is None else len(self._waiting) + len(self._ordering)

    def _turn_is_over(self) -> bool:
        """Return whether deliveries were handed out for so long in this turn of the loop that others are due."""
        now = self._loop.time()
        if not self._turn_began:
            self._turn_began = now
            self._loop.call_soon(self._next_turn)
        return now - self._turn_began > _LONGEST_TURN

    def _next_turn(self) -> None:
        self._turn_began = 0.0

    def dismiss_idle(self) -> None:
        """End the waits of `next`: nothing more will come."""
        self._subscription.stop_growing()
        self._dismissed = True
        for waiter in self._idle:
            wake(waiter)
        self._idle.clear()

    # -- settling

    def holds(self, delivery: Delivery) -> bool:
        """Return whether this session may still settle the delivery."""
        return not self.ended.is_set() and delivery.delivery_tag in self._held

    def ack(self, delivery: Delivery) -> bool:
        """Ack; False when the delivery is no longer ours, in which case it comes again."""
        done = self._forget(delivery.delivery_tag) and self.channel.ack(delivery.delivery_tag)
        if done and self._subscription.grows and not self.admission.paused:
            self._subscription.survived()
        return done

    def requeue(self, delivery: Delivery) -> bool:
        """Return the delivery to its place in the queue; False when it is no longer ours."""
        return self._forget(delivery.delivery_tag) and self.channel.nack(delivery.delivery_tag)

    def dead_letter(self, delivery: Delivery) -> bool:
        """Leave the delivery to the queue's own dead-lettering; False when it is no longer ours."""
        return self._forget(delivery.delivery_tag) and self.channel.nack(delivery.delivery_tag, requeue=False)

    def reject(self, delivery: Delivery) -> bool:
        """Reject with requeue, for a native queue; False when the delivery is no longer ours."""
        return self._forget(delivery.delivery_tag) and self.channel.reject(delivery.delivery_tag)

    def _forget(self, tag: int) -> bool:
        mine = self._held.pop(tag, None) is not None and not self.ended.is_set()
        self._started.pop(tag, None)
        self._unsettled.discard(tag)
        self.admission.held_up.discard(tag)
        if tag in self.aside:
            self.aside.pop(tag).set()
        self._settled.set()
        self._runs_no_longer(tag)
        if tag in self._off_hands:
            wake(self._off_hands[tag])
        if self._ordering is not None:
            self._ordering.settled(tag)
        if self.keeps_order:
            self._subscription.room_since = self._loop.time()
        return mine

    def handling(self, delivery: Delivery) -> None:
        """Keep the delivery's key of `order_by` until `handled`: its handler is about to be called."""
        if self._ordering is not None:
            self._ordering.handling(delivery.delivery_tag)

    def handled(self, delivery: Delivery) -> None:
        """Free the key: the handler has ended, or was not called."""
        if self._ordering is not None:
            self._ordering.handled(delivery.delivery_tag, held=self.holds(delivery))

    def held_since(self, delivery: Delivery) -> float:
        """Return when the delivery arrived, on the event loop's clock in seconds; now if it is settled."""
        return self._held.get(delivery.delivery_tag) or self._loop.time()

    def unsettled(self, delivery: Delivery) -> None:
        """Note that the handler has ended, and that the delivery is still to be settled."""
        self._unsettled.add(delivery.delivery_tag)

    def unsettled_deliveries(self) -> Iterator[Delivery]:
        """Yield what is held: while the session lasts, or when it ended."""
        behind = self._ordering.waiting() if self._ordering is not None else ()
        for each in (*self._started.values(), *self._waiting, *behind):
            if each.delivery_tag in self._held:
                yield each

    def held(self) -> list[Held]:
        """Return what is not settled: while the session lasts, or when it ended."""
        now, found = self._loop.time(), list[Held]()
        for each in self.unsettled_deliveries():
            tag = each.delivery_tag
            in_handler: HeldState = "unsettled" if tag in self._unsettled else "handled"
            state = in_handler if tag in self._started and tag not in self.aside else "waiting"
            message_id = Incoming(each).message_id
            found.append(Held(message_id=message_id, seconds=now - self._held[tag], state=state))
        return found

    @property
    def why(self) -> str:
        """Return why it ended, as far as it is known by now."""
        reason = self.channel.close_reason
        return self.why_ended or (CANCELLED if self.cancelled_by_server else str(reason or "it was closed"))

    # -- pausing

    async def resume(self, delivery: Delivery) -> None:
        """Consume again, unless something else still keeps the session from it."""
        self.admission.settled(delivery.delivery_tag)
        await self._go_on()

    async def _go_on(self) -> None:
        if self.admission.running:
            self._wake()
        await self._subscription.reconcile()

    # -- holding

    def hold(self, delivery: Delivery) -> bool:
        """Note that a delivery cannot be settled now; others are handled meanwhile. False if that was known."""
        tag = delivery.delivery_tag
        if tag not in self._held:
            return False
        known = not self.admission.hold(tag)
        if not known and self._subscription.grows and not self.admission.paused:
            self._subscription.survived()  # its handler has ended: what is held must not use up a first prefetch
        self._settled.set()
        self._runs_no_longer(tag)
        if tag in self._off_hands:
            wake(self._off_hands[tag])
        return not known

    @property
    def stands_still(self) -> bool:
        """Return whether nothing more is delivered: all that the prefetch allows cannot be settled."""
        if self._subscription.is_growing:
            return False
        taken = sum(1 for tag in self.admission.held_up if tag > self._delivered_before)
        if taken and not self._running:
            taken += self._unstarted - len(self._waiting)  # they wait behind those of their key
        return taken >= self._subscription.prefetch

    async def off_hands(self, delivery: Delivery) -> None:
        """Wait until a delivery is settled, or held because it cannot be now, or the session has ended."""
        tag = delivery.delivery_tag
        if tag in self._held and tag not in self.admission.held_up and not self.ended.is_set():
            waiting = self._off_hands[tag] = self._loop.create_future()
            try:
                await waiting
            finally:
                if self._off_hands.get(tag) is waiting:
                    del self._off_hands[tag]

    @property
    def _running(self) -> int:
        """Count the deliveries that a handler has, or is about to have; those that are held up are not."""
        return len(self._held) - self._unstarted - len(self.admission.held_up) - len(self.aside)

    # -- an outage

    async def rest(self, *, older_than: float = 0.0) -> None:
        """Stop consuming once `admission` is shut, and requeue what has waited for `older_than` seconds.

        Where an order must be kept, nothing is done until a delivery has waited so long.
        """
        if not self.keeps_order or self._has_waited(older_than):
            await self._subscription.leave()
            self.requeue_waiting(older_than=older_than)

    async def try_one(self) -> None:
        """Let one delivery start despite the outage: a held one, else the next one of the broker."""
        if self.admission.single or self.admission.tried in self._held:
            return
        self.admission.try_one()
        self._subscription.take_one()
        await self._go_on()

    async def open(self) -> None:
        """End the outage: consume as at the start."""
        self.admission.open()
        if self.admission.running:
            self._wake()
        await self._subscription.start_again()

    async def isolate(self, delivery: Delivery) -> None:
        """Let nothing else start until this delivery is settled and `resume` is called.

        Waiting deliveries are requeued where that is not counted and no order must be kept. Else they are held, and
        counted if this one kills the consumer.
        """
        self.admission.alone = delivery.delivery_tag
        await self._subscription.reconcile()
        if not (self.nack_counts or self.keeps_order):  # such a consumer would get them again
            self.requeue_waiting()

    @property
    def has_waiting_suspects(self) -> bool:
        behind = self._ordering.waiting() if self._ordering is not None else ()
        return bool(self.aside) or any(map(self._is_suspect, (*self._waiting, *behind)))

    def waiting_suspects(self) -> list[Delivery]:
        """Take out the suspects that have not started, to put them away; none where an order must be kept."""
        if self.keeps_order:
            return []
        self._end_aside()
        suspects = [each for each in self._waiting if self._is_suspect(each)]
        for each in suspects:
            self._waiting.remove(each)
        return suspects

    def _gather(self) -> None:
        """Return deliveries that wait behind another one of their key to the others, in the order of the queue."""
        if self._ordering is not None:
            found = [*self._ordering.drain(), *self._waiting]
            self._waiting = deque(sorted(found, key=lambda each: each.delivery_tag))

    async def is_alone(self, delivery: Delivery, *, within: float) -> bool:
        """Wait for deliveries that started before `isolate`; False when one still runs, or this one is not ours."""
        until = self._loop.time() + within
        while self.holds(delivery) and self._running > 1 and not self.over.is_set():
            self._settled.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._settled.wait()
            except TimeoutError:
                return False
        return self.holds(delivery)

    def set_aside(self, delivery: Delivery) -> asyncio.Event:
        """Let a suspect wait, and keep its key, until the handlers that run now have ended; others are handled
        meanwhile. Return an event that is set when it waits for a slot again.
        """
        tag = delivery.delivery_tag
        self.admission.not_started(tag)
        self.aside[tag] = back = asyncio.Event()
        if not self.longer:
            self.longer = self._held.keys() & (self._started.keys() - self.aside.keys() - self.admission.held_up)
        if self._subscription.grows and not self.admission.outage:
            self._subscription.grow()  # else it and they could be all that is delivered
        if not self.longer:
            self._end_aside()
        return back

    def back(self, delivery: Delivery) -> None:
        """Let one that was set aside wait for a slot again."""
        self.aside.pop(delivery.delivery_tag).set()
        self.put_off(delivery)

    def _end_aside(self) -> None:
        for tag in sorted(self.aside, reverse=True):
            self.back(self._started[tag])
        self._gather()

    def _runs_no_longer(self, tag: int) -> None:
        if tag in self.longer:
            self.longer.discard(tag)
            if not self.longer:
                self._end_aside()

    def put_off(self, delivery: Delivery) -> None:
        """Let a delivery wait again, before all others: it was let start, and has not begun."""
        tag = delivery.delivery_tag
        self._started.pop(tag, None)
        if self._ordering is not None:
            self._ordering.handled(tag, held=False)
        self.admission.not_started(tag)
        self._waiting.appendleft(delivery)
        self._gather()
        self._settled.set()
        if self.admission.running:
            self._wake()

    def waits_again(self, delivery: Delivery) -> bool:
        """Put off what cannot begin now, where an order must be kept; False when it is to be requeued."""
        waits = self.keeps_order and self.holds(delivery) and not self._stopping
        if waits:
            self.put_off(delivery)
        return waits

    async def stand_back(self) -> None:
        """Consume nothing until `come_forward`: a suspect of another queue is handled alone in this process."""
        self.admission.elsewhere += 1
        await self._subscription.reconcile()

    async def come_forward(self) -> None:
        """Consume again: the other queue's suspect is settled."""
        self.admission.elsewhere -= 1
        await self._go_on()

    async def until_set(self, event: asyncio.Event) -> None:
        """Wait for an event, or until the session is over."""
        await first_of(event.wait(), self.over.wait())

    def excuse_others(self, delivery: Delivery) -> None:
        """Remember what is held beside a message that kills: it may have been counted for that message."""
        self._excused |= self._held.keys() - {delivery.delivery_tag}

    def is_excused(self, delivery: Delivery) -> bool:
        """Return whether the delivery was held here when another one was parked as a killer."""
        return delivery.delivery_tag in self._excused

    def requeue_waiting(self, *, older_than: float = 0.0) -> int:
        """Requeue, in delivery order, what no handler has started; return how many.

        What is held for less than `older_than` seconds stays, unless an order must be kept.
        """
        if self.keeps_order:  # deliveries that stayed would be before those that are requeued: all stay, or none
            if not self._has_waited(older_than):
                return 0
            older_than = 0.0
        since, tags = self._loop.time() - older_than, list[int]()
        self._gather()
        for _ in range(len(self._waiting)):
            delivery = self._waiting.popleft()
            if self._held.get(delivery.delivery_tag, since) <= since:
                tags.append(delivery.delivery_tag)
            else:
                self._waiting.append(delivery)
        if self._ordering is not None and self._waiting:
            self._wake()  # those that waited behind another one may start
        return self._requeue_all(sorted(tags))

    def _has_waited(self, seconds: float) -> bool:
        """Return whether a delivery that no handler has started is held for so long."""
        behind = self._ordering.waiting() if self._ordering is not None else ()
        since = self._loop.time() - seconds
        return any(self._held.get(each.delivery_tag, since) <= since for each in (*self._waiting, *behind))

    def _requeue_all(self, tags: list[int]) -> int:
        return sum(self._forget(tag) and self.channel.nack(tag) for tag in tags)

    # -- ending

    async def stop(self, *, until: float) -> int:
        """Cancel the consumer, requeue what has not started, wait for what has, close the channel.

        After `until`, the event loop's time in seconds, started deliveries are requeued as well. Return how many were.
        """
        self._stopping = True
        try:
            async with asyncio.timeout_at(until):
                if self.keeps_order:
                    await self._all_arrived()
                await self._subscription.reconcile()
                self._end_aside()
                self._waiting = deque([each for each in self._waiting if self._on_leave(each) is None])
                self.requeue_waiting()
                # what cannot be parked now cannot be parked in the time that is left
                self._requeue_all(sorted(self.admission.held_up))
                self.over.set()
                while self._held and not self.ended.is_set():
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            pass
        self.over.set()
        unfinished = len(self._held)
        left = [each for tag, each in self._started.items() if tag in self._held and tag not in self._unsettled]
        if leaving := [task for task in map(self._on_leave, left) if task is not None]:
            await asyncio.wait(leaving, timeout=_LEAVING)
        self._requeue_all(list(self._held))
        await self._subscription.grown()
        await self.channel.close()
        return unfinished

    async def _all_arrived(self) -> None:
        """Wait for deliveries on their way: a cancel would put them before those that are requeued after it."""
        last = self._loop.time() + _LONGEST_ARRIVAL
        while len(self._held) < self._subscription.prefetch and not self.ended.is_set():
            left = min(self._subscription.room_since + _ON_ITS_WAY, last) - self._loop.time()
            if left <= 0:
                return
            await asyncio.sleep(min(left, 0.01))


InBackground = Callable[[Session, Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Runs a coroutine as a task that ends with the consumer, and ends the session if it fails."""
