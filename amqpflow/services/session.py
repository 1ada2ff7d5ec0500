"""One consumer on one channel: deliveries come in, each is settled at most once, and on this channel only.

A crash counts against the delivery limit of everything that is unacked then (fact 3.8). So a session starts with a
small prefetch and widens it once acks have gone out, and a message that was in several crashes is handled alone
(`delivery/crashes.py`).

What the broker has just assigned to a consumer when that is cancelled goes back to the queue before or behind what is
given back then: another order. So where an order is to be kept the consumer begins with its whole prefetch, and a pause
does not cancel it but holds what arrives.

A session ends with its channel. Deliveries that were not settled then are the broker's again, whatever their handlers
come to: a tag means nothing on another channel (facts 9.2, 12.2).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from uuid import uuid4

from amqpflow.delivery.ending import CANCELLED, Held, HeldState
from amqpflow.delivery.incoming import Incoming, may_have_been_lost
from amqpflow.errors import AmqpflowError
from amqpflow.model.message import Delivery
from amqpflow.rabbitmq.channel import Channel

from .admission import Admission
from .lanes import Lanes

log = logging.getLogger("amqpflow.consumer")

_LEAVING = 1.0  #: seconds for the broker to confirm what is moved at the end of a stop
_LONGEST_TURN = 0.005  #: seconds that handlers may run without the event loop, and acks wait to be written

_ON_ITS_WAY = 0.2  #: seconds in which a message arrives that a new consumer or an ack has made room for
_LONGEST_ARRIVAL = 1.0  #: seconds to wait for such messages before a consumer is cancelled, all in all


class Session:
    """The consuming side of one handler on one channel."""

    def __init__(
        self,
        channel: Channel,
        queue: str,
        *,
        prefetch: int,
        first_prefetch: int,
        lanes: Lanes | None = None,
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
        self.over = asyncio.Event()  #: ended, or about to: nothing is waited for any more
        self.cancelled_by_server = False
        self.why_ended = ""  #: in words, once it is known; see `why`
        # a cancel hands a single active consumer's queue to another one, at once and whatever is unacked (fact 12.12)
        self.single_active = single_active
        self.keeps_order = single_active or lanes is not None  #: the prefetch does not grow, a pause holds what arrives
        self._prefetch = prefetch if self.keeps_order else first_prefetch
        self._first = self._prefetch
        self._lanes = lanes.of_session(self._wake) if lanes is not None else None
        self.nack_counts = nack_counts  #: giving back counts as a crash does, before RabbitMQ 4.3
        self._is_suspect, self._on_suspect, self._on_end, self._on_leave = is_suspect, on_suspect, on_end, on_leave
        self._excused: set[int] = set()
        self._aside: dict[int, asyncio.Event] = {}  # suspects that wait for `_longer`, by tag, and what ends the wait
        self._longer: set[int] = set()  # tags of what ran on when one of them was to be alone
        self._wider = prefetch
        self._acks_to_widen = first_prefetch
        self._widening: asyncio.Task[None] | None = None
        self._admission = Admission()
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, float] = {}  # what is not settled, by tag: when it arrived
        self._waiting: deque[Delivery] = deque()  # no handler has started them
        self._started: dict[int, Delivery] = {}  # those of `_held` that were handed out
        self._unsettled: set[int] = set()  # and those whose handler has ended, while their publish is awaited
        self._idle: deque[asyncio.Future[None]] = deque()  # who waits in `next`
        self._off_hands: dict[int, asyncio.Future[None]] = {}  # who waits until a delivery is settled or held, by tag
        self._delivered_before = 0  # the last tag that an earlier consumer of this channel was handed
        self._last_tag = 0
        self._waking = False  # one of them was woken and has not run yet: it wakes the next if there is more to do
        self._dismissed = False
        self._turn_began = 0.0  # the loop's time in seconds; 0.0 when nothing was handed out in this turn
        self._tag: str | None = None
        self._changing = asyncio.Lock()
        self._settled = asyncio.Event()
        self._stopping = False
        self._room_since = 0.0  # the loop's time when the broker was last let assign more; only where order is kept
        self._replacing = False
        channel.on_close(self._end)

    # -- taking

    async def start(self) -> None:
        """
        Begin to consume, unless it was shut before.

        Raises:
            BrokerError (404: no such queue), PermissionDenied, BrokerUnavailable.
        """
        if not self._admission.paused:
            await self._consume()

    async def _consume(self) -> None:
        self._delivered_before = self._last_tag
        # known before the broker answers: whoever is cancelled meanwhile leaves a consumer that `stop` can cancel
        self._tag = f"amqpflow-{uuid4().hex[:12]}"
        await self.channel.consume(
            self.queue,
            self._take,
            prefetch=self._prefetch,
            on_cancel=self._cancelled,
            tag=self._tag,
        )
        self._room_since = self._loop.time()

    def _take(self, delivery: Delivery) -> None:
        self._last_tag = delivery.delivery_tag
        self._held[delivery.delivery_tag] = self._loop.time()
        suspected = may_have_been_lost(delivery) and self._is_suspect(delivery)
        if suspected and delivery.redelivered and not self.keeps_order:
            # before others start that may kill it: what came back together arrives together
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
            _end_wait(waiter)
        if self._lanes is not None:
            self._lanes.over()
        if first:
            self._on_end(tuple(self.unsettled_deliveries()))

    async def next(self) -> Delivery | None:
        """
        The next delivery to handle, once the session is not paused; None when the session is over.

        Returns at once while there is something to do: one task goes on from message to message as long as its handler
        does not wait for anything, and is held up now and then for everybody else's sake.
        """
        admission = self._admission
        while True:
            if self._turn_is_over():
                await asyncio.sleep(0)
                continue  # asked again: else each of many tasks would handle one more in this turn
            if admission.running and not self._stopping:
                while self._unstarted:
                    delivery = self._waiting.popleft() if self._lanes is None else self._lanes.pick(self._waiting)
                    if delivery is None:
                        break
                    if delivery.delivery_tag in self._held and not self.ended.is_set():
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
        """How many wait, for a handler or behind another one of their key."""
        return len(self._waiting) if self._lanes is None else len(self._waiting) + len(self._lanes)

    def _turn_is_over(self) -> bool:
        """Whether deliveries were handed out for so long in this turn of the loop that others must have theirs."""
        now = self._loop.time()
        if not self._turn_began:
            self._turn_began = now
            self._loop.call_soon(self._next_turn)
        return now - self._turn_began > _LONGEST_TURN

    def _next_turn(self) -> None:
        self._turn_began = 0.0

    def dismiss_idle(self) -> None:
        """End the waits of `next`: nothing more will come."""
        if self._widening is not None:
            self._widening.cancel()
        self._dismissed = True
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        self._idle.clear()

    # -- settling

    def holds(self, delivery: Delivery) -> bool:
        """Whether this session may still settle the delivery."""
        return not self.ended.is_set() and delivery.delivery_tag in self._held

    def ack(self, delivery: Delivery) -> bool:
        """Ack; False when the delivery is no longer ours, in which case it comes again."""
        done = self._forget(delivery.delivery_tag) and self.channel.ack(delivery.delivery_tag)
        if done and self._prefetch < self._wider:
            self._survived()
        return done

    def _survived(self) -> None:
        if not self._admission.paused:
            self._acks_to_widen -= 1
            if self._acks_to_widen <= 0 and self._widening is None:
                self._widening = asyncio.create_task(self._widen())

    async def _widen(self) -> None:
        # a prefetch is that of new consumers (basic.qos), so the consumer is changed for another one
        self._prefetch = self._wider
        await self._replace()

    async def _replace(self) -> None:
        if not self.keeps_order:
            await self._leave()
        await self._reconcile()

    async def _leave(self) -> None:
        if self._tag is not None and not self.single_active:
            self._replacing = True
            await self._reconcile()
            self._replacing = False

    def give_back(self, delivery: Delivery, *, requeue: bool = True) -> bool:
        """nack: to its place in the queue, or with `requeue=False` to the broker's own dead-lettering."""
        return self._forget(delivery.delivery_tag) and self.channel.nack(delivery.delivery_tag, requeue=requeue)

    def reject(self, delivery: Delivery) -> bool:
        """basic.reject with requeue, for a native queue; False when the delivery is no longer ours."""
        return self._forget(delivery.delivery_tag) and self.channel.reject(delivery.delivery_tag)

    def _forget(self, tag: int) -> bool:
        mine = self._held.pop(tag, None) is not None and not self.ended.is_set()
        self._started.pop(tag, None)
        self._unsettled.discard(tag)
        self._admission.held_up.discard(tag)
        if tag in self._aside:
            self._aside.pop(tag).set()
        self._settled.set()
        self._runs_no_longer(tag)
        if tag in self._off_hands:
            _end_wait(self._off_hands[tag])
        if self._lanes is not None:
            self._lanes.settled(tag)
        if self.keeps_order:
            self._room_since = self._loop.time()
        return mine

    def handling(self, delivery: Delivery) -> None:
        """The handler of the delivery is about to be called, and keeps its key of `order_by` until `handled`."""
        if self._lanes is not None:
            self._lanes.handling(delivery.delivery_tag)

    def handled(self, delivery: Delivery) -> None:
        """The handler has ended, or was not called."""
        if self._lanes is not None:
            self._lanes.handled(delivery.delivery_tag, held=self.holds(delivery))

    def held_since(self, delivery: Delivery) -> float:
        """When the delivery arrived, on the event loop's clock in seconds; now if it is settled."""
        return self._held.get(delivery.delivery_tag) or self._loop.time()

    def unsettled(self, delivery: Delivery) -> None:
        """Note that the handler has ended, and that the delivery is still to be settled."""
        self._unsettled.add(delivery.delivery_tag)

    def unsettled_deliveries(self) -> Iterator[Delivery]:
        """Yield what is held: while the session lasts, or when it ended."""
        behind = self._lanes.waiting() if self._lanes is not None else ()
        for each in (*self._started.values(), *self._waiting, *behind):
            if each.delivery_tag in self._held:
                yield each

    def held(self) -> list[Held]:
        """What is not settled: while the session lasts, or when it ended."""
        now, found = self._loop.time(), list[Held]()
        for each in self.unsettled_deliveries():
            tag = each.delivery_tag
            in_handler: HeldState = "unsettled" if tag in self._unsettled else "handled"
            state = in_handler if tag in self._started and tag not in self._aside else "waiting"
            message_id = Incoming(each).message_id
            found.append(Held(message_id=message_id, seconds=now - self._held[tag], state=state))
        return found

    @property
    def why(self) -> str:
        """Why it ended, as far as it is known by now."""
        reason = self.channel.close_reason
        return self.why_ended or (CANCELLED if self.cancelled_by_server else str(reason or "it was closed"))

    # -- pausing

    @property
    def is_in_outage(self) -> bool:
        """There is an outage, with a problem of its own."""
        return self._admission.outage

    async def resume(self, delivery: Delivery) -> None:
        """Consume again, unless something else still keeps the session from it."""
        self._admission.settled(delivery.delivery_tag)
        await self._go_on()

    async def _go_on(self) -> None:
        if self._admission.running:
            self._wake()
        await self._reconcile()

    # -- what cannot be settled now

    def hold(self, delivery: Delivery) -> bool:
        """This delivery cannot be settled now, and others are handled meanwhile. False when that was known."""
        tag = delivery.delivery_tag
        if tag not in self._held:
            return False
        known = not self._admission.hold(tag)
        if not known and self._prefetch < self._wider:
            self._survived()  # its handler has ended, and a first prefetch must not be used up by what is held
        self._settled.set()
        self._runs_no_longer(tag)
        if tag in self._off_hands:
            _end_wait(self._off_hands[tag])
        return not known

    def let_go(self, delivery: Delivery) -> None:
        """It can be settled now, or is."""
        self._admission.held_up.discard(delivery.delivery_tag)

    @property
    def held_up(self) -> int:
        """How many deliveries cannot be settled now."""
        return len(self._admission.held_up)

    @property
    def stands_still(self) -> bool:
        """Nothing more is delivered: all that the prefetch allows cannot be settled."""
        if self._widening is not None and not self._widening.done():
            return False
        taken = sum(1 for tag in self._admission.held_up if tag > self._delivered_before)
        if taken and not self._running:
            taken += self._unstarted - len(self._waiting)  # they wait behind those of their key
        return taken >= self._prefetch

    async def off_hands(self, delivery: Delivery) -> None:
        """Wait until a delivery is settled, or held because it cannot be now, or the session has ended."""
        tag = delivery.delivery_tag
        if tag in self._held and tag not in self._admission.held_up and not self.ended.is_set():
            waiting = self._off_hands[tag] = self._loop.create_future()
            try:
                await waiting
            finally:
                if self._off_hands.get(tag) is waiting:
                    del self._off_hands[tag]

    @property
    def _running(self) -> int:
        """How many deliveries a handler has, or is about to have: what is held up is through."""
        return len(self._held) - self._unstarted - len(self._admission.held_up) - len(self._aside)

    # -- an outage

    def shut(self) -> None:
        """Start nothing more, from this moment on. `cancel` tells the broker."""
        self._admission.shut()

    async def rest(self, *, older_than: float = 0.0) -> None:
        """
        Stop consuming after `shut`, and give back what has waited for `older_than` seconds.

        Where an order is to be kept nothing is done before something has waited so long.
        """
        if not self.keeps_order or self._has_waited(older_than):
            await self._leave()
            self.give_back_waiting(older_than=older_than)

    async def try_one(self) -> None:
        """Let one delivery start although it is shut: one that is held, else the next that the broker has."""
        if self._admission.single or self._admission.tried in self._held:
            return
        self._admission.try_one()
        if not self.keeps_order:
            self._prefetch = 1
        await self._go_on()

    def is_tried(self, delivery_tag: int) -> bool:
        """Whether this is the delivery that `try_one` let start."""
        return self._admission.tried == delivery_tag

    async def open(self) -> None:
        """The outage is over: consume as at the start."""
        self._admission.open()
        self._prefetch, self._acks_to_widen, self._widening = self._first, self._first, None
        if self._admission.running:
            self._wake()
        await self._replace()

    async def _reconcile(self) -> None:
        async with self._changing:
            try:
                stays = self.single_active or (self.keeps_order and self._tag is not None)
                wanted = stays or self._admission.wants_more(self._unstarted)
                wanted = wanted and not (self._stopping or self._replacing or self.ended.is_set())
                if not wanted and self._tag is not None:
                    tag, self._tag = self._tag, None
                    await self.channel.cancel(tag)
                elif wanted and self._tag is None:
                    await self._consume()
            except AmqpflowError as error:
                log.debug("%s: the channel ended while the consumer was changed: %s", self.queue, error)
                self._end()

    async def isolate(self, delivery: Delivery) -> None:
        """
        Let nothing else start until this delivery is settled and `resume` is called.

        What waits is given back where that is not counted and no order is to be kept; else it is held, and counted
        should this one kill.
        """
        self._admission.alone = delivery.delivery_tag
        await self._reconcile()
        if not (self.nack_counts or self.keeps_order):  # what those gave back would be their own again
            self.give_back_waiting()

    @property
    def has_waiting_suspects(self) -> bool:
        """Whether a suspect is held that has not started."""
        behind = self._lanes.waiting() if self._lanes is not None else ()
        return bool(self._aside) or any(map(self._is_suspect, (*self._waiting, *behind)))

    def waiting_suspects(self) -> list[Delivery]:
        """Take out the suspects that have not started, for them to be put away; none where an order is to be kept."""
        if self.keeps_order:
            return []
        self._end_aside()
        suspects = [each for each in self._waiting if self._is_suspect(each)]
        for each in suspects:
            self._waiting.remove(each)
        return suspects

    def _gather(self) -> None:
        """Let those that wait behind another one of their key be looked at once more, in the order of the queue."""
        if self._lanes is not None:
            found = [*self._lanes.drain(), *self._waiting]
            self._waiting = deque(sorted(found, key=lambda each: each.delivery_tag))

    async def is_alone(self, delivery: Delivery, *, within: float) -> bool:
        """
        Wait for what has started before `isolate`.

        False when it runs on after so many seconds, or the delivery is not the session's any more.
        """
        until = self._loop.time() + within
        while self.holds(delivery) and self._running > 1 and not self.over.is_set():
            self._settled.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._settled.wait()
            except TimeoutError:
                return False
        return self.holds(delivery)

    @property
    def has_longer_ones(self) -> bool:
        """Whether something still runs that a suspect has waited for in vain."""
        return bool(self._longer)

    def set_aside(self, delivery: Delivery) -> asyncio.Event:
        """
        Let a suspect wait until what runs now has ended, and others be handled meanwhile. It keeps its key.

        Returns:
            What is set when it waits for a slot again.
        """
        tag = delivery.delivery_tag
        self._admission.not_started(tag)
        self._aside[tag] = back = asyncio.Event()
        if not self._longer:
            self._longer = self._held.keys() & (self._started.keys() - self._aside.keys() - self._admission.held_up)
        if self._prefetch < self._wider and not self._admission.outage and self._widening is None:
            self._widening = asyncio.create_task(self._widen())  # else it and they could be all that is delivered
        if not self._longer:
            self._end_aside()
        return back

    def is_aside(self, delivery: Delivery) -> bool:
        """Whether it waits for others to end."""
        return self.holds(delivery) and delivery.delivery_tag in self._aside

    @property
    def aside(self) -> int:
        """How many suspects wait for others to end."""
        return len(self._aside)

    def back(self, delivery: Delivery) -> None:
        """Let one that was set aside wait for a slot again."""
        self._aside.pop(delivery.delivery_tag).set()
        self.put_off(delivery)

    def _end_aside(self) -> None:
        for tag in sorted(self._aside, reverse=True):
            self.back(self._started[tag])
        self._gather()

    def _runs_no_longer(self, tag: int) -> None:
        if tag in self._longer:
            self._longer.discard(tag)
            if not self._longer:
                self._end_aside()

    def put_off(self, delivery: Delivery) -> None:
        """Let it wait again, before all others: it was let start, and has not begun."""
        tag = delivery.delivery_tag
        self._started.pop(tag, None)
        if self._lanes is not None:
            self._lanes.handled(tag, held=False)
        self._admission.not_started(tag)
        self._waiting.appendleft(delivery)
        self._gather()
        self._settled.set()
        if self._admission.running:
            self._wake()

    def waits_again(self, delivery: Delivery) -> bool:
        """Put off what cannot begin now, where an order is to be kept; False when it is to be given back."""
        waits = self.keeps_order and self.holds(delivery) and not self._stopping
        if waits:
            self.put_off(delivery)
        return waits

    async def stand_back(self) -> None:
        """Consume nothing until `come_forward`: a suspect of another queue is handled alone in this process."""
        self._admission.elsewhere += 1
        await self._reconcile()

    async def come_forward(self) -> None:
        """It is settled."""
        self._admission.elsewhere -= 1
        await self._go_on()

    async def until_set(self, event: asyncio.Event) -> None:
        """Wait for an event, or until the session is over."""
        waiting = [asyncio.ensure_future(each.wait()) for each in (event, self.over)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()

    def excuse_others(self, delivery: Delivery) -> None:
        """Remember what is held beside a message that kills: it may have been counted for that one's doing."""
        self._excused |= self._held.keys() - {delivery.delivery_tag}

    def is_excused(self, delivery: Delivery) -> bool:
        """Whether it was held here when another one was parked as a killer."""
        return delivery.delivery_tag in self._excused

    def give_back_waiting(self, *, older_than: float = 0.0) -> int:
        """
        Give back, in delivery order, what no handler has started; returns how many.

        `older_than` is in seconds: what is held for a shorter time stays, unless an order is to be kept.
        """
        if self.keeps_order:  # what stayed would be before what is given back: all stays, or nothing
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
        if self._lanes is not None and self._waiting:
            self._wake()  # those that waited behind another one are to be looked at once more
        return self._give_back(sorted(tags))

    def _has_waited(self, seconds: float) -> bool:
        """Whether something that no handler has started is held for so long."""
        behind = self._lanes.waiting() if self._lanes is not None else ()
        since = self._loop.time() - seconds
        return any(self._held.get(each.delivery_tag, since) <= since for each in (*self._waiting, *behind))

    def _give_back(self, tags: list[int]) -> int:
        return sum(self._forget(tag) and self.channel.nack(tag) for tag in tags)

    # -- ending

    async def stop(self, *, until: float) -> int:
        """
        Cancel the consumer, give back what has not started, wait for what has, close the channel.

        Args:
            until: the event loop's time in seconds after which started deliveries are given back as well.

        Returns:
            How many started deliveries had to be given back.
        """
        self._stopping = True
        try:
            async with asyncio.timeout_at(until):
                if self.keeps_order:
                    await self._all_arrived()
                await self._reconcile()
                self._end_aside()
                self._waiting = deque([each for each in self._waiting if self._on_leave(each) is None])
                self.give_back_waiting()
                # what cannot be parked now cannot be parked within the time there is
                self._give_back(sorted(self._admission.held_up))
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
        self._give_back(list(self._held))
        if self._widening is not None:
            await asyncio.gather(self._widening, return_exceptions=True)
        await self.channel.close()
        return unfinished

    async def _all_arrived(self) -> None:
        """Wait for what the broker has just assigned: a cancel would put it before what is given back after that."""
        last = self._loop.time() + _LONGEST_ARRIVAL
        while len(self._held) < self._prefetch and not self.ended.is_set():
            left = min(self._room_since + _ON_ITS_WAY, last) - self._loop.time()
            if left <= 0:
                return
            await asyncio.sleep(min(left, 0.01))


def _end_wait(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
