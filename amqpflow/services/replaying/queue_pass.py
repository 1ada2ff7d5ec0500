"""One reading of one parking queue, and what of it is replayed.

For each message in this order: the journal says that it is about to be sent, on disk; publish; the confirm, and no
return before it; the journal says so, on disk; the journal says that it is about to be acked, on disk; ack. Many
messages make each step together, and one write to the disk serves all of a window: the next ones are announced in the
same line in which those before are confirmed, and those before these about to be acked. For every await between two of
the steps the answer to "what if the process dies here?" is: the journal names the message, and what is sent again has
the same hop id. Confirmed and not announced to be acked, it is parked still, and need not be sent; announced, it may be
gone, and one that is equal to it in every byte may be parked: that one is sent.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from contextlib import aclosing

from amqpflow.delivery.backoff import Backoff
from amqpflow.errors import (
    AmqpflowError,
    BrokerError,
    BrokerUnavailableError,
    PublishError,
    PublishForbiddenError,
    PublishRefusedError,
    UnroutableError,
)
from amqpflow.model.message import Delivery
from amqpflow.parking.identity import parked_digest
from amqpflow.parking.parked import ParkedMessage, read_parked
from amqpflow.parking.replay import replay_publish, replayed_hop
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.reader import ParkingReader

from .interrupted_sends import InterruptedSend
from .outbox import Address, PendingReplay, ReplayOutbox
from .plan import is_misplaced
from .rate_limiter import RateLimiter
from .state import ReplayState
from .waiting import Waiting

WINDOW = 4000  #: publishes without a confirm at a time; a crash leaves at most so many in doubt
BATCH = 1000  #: messages that go through the journal together, at most
CONFIRM_TIMEOUT = 30.0  #: seconds; a broker short of memory or disk does not confirm
PATIENCE = 5.0  #: seconds to wait for room in a work queue that is full, since it last took a message
RECONNECT_WITHIN = 30.0  #: seconds to try to publish after the connection was lost, since the last confirm
WAITING_BYTES = 32 * 1024 * 1024  #: bodies that wait to be sent; what is over that is read again later
PROVE_EVERY = 2.0  #: seconds
_RESEND = Backoff(0.05, 0.5)  #: before what was refused is sent again
_REFUSED = "the broker refused it (basic.nack)"
_GROUP = 30  #: confirms that are worth a write to the disk while more are on their way


class QueuePass:
    """One reading. `again` says that another one has to go on."""

    def __init__(
        self,
        replay: ReplayState,
        reader: ParkingReader,
        outbox: ReplayOutbox,
        limiter: RateLimiter,
        options: ReadOptions,
        *,
        news: asyncio.Event,
    ) -> None:
        self.again = False
        self.gone = 0  #: messages that it took out of the queue
        self.came_back = 0  #: replayed before by this replay, and parked again
        self.brought_back = 0  #: replayed by another that began after the first reading, and parked again
        self.cut_short = False  #: stopped while messages were waiting
        self.looked_at = 0  #: messages
        self.new = 0  #: of these, parked since the replay began, with a priority
        self._replay = replay
        self._reader = reader
        self._outbox = outbox
        self._limiter = limiter
        self._stop = options.stop
        self._news = news
        self._on_progress = options.on_progress
        self._waiting = Waiting()
        self._settled: list[tuple[ParkedMessage, InterruptedSend]] = []  # sent by an interrupted replay: to be acked
        self._to_ack: list[PendingReplay] = []  # the journal says that they are confirmed
        self._sent_before: set[int] = set()  # delivery tags of what an interrupted replay may have sent
        self._again: dict[int, int] = {}  # of those, what an earlier run of this replay confirmed: its number there
        self._allowed = replay.allowed()
        limit = replay.choice.limit
        self._left = None if limit is None else limit - replay.report.taken
        self._resend: list[tuple[PendingReplay, AmqpflowError | None]] = []  # to be sent again, and why
        self._resend_at = 0.0
        self._resend_wait = _RESEND.first
        self._loop = asyncio.get_running_loop()
        self._begun = self._last_success = self._loop.time()
        self._successes: dict[Address, float] = {}  # when the last confirm came, by destination
        self._nowhere = False  # no destination takes messages any more
        self._proving: asyncio.Task[None] | None = None
        self._prove_at = self._loop.time() + PROVE_EVERY
        self._provable = 0
        self._selected = 0
        self._prepared: list[PendingReplay] = []
        self._since: int | None = None

    async def go(self, *, at_most: int, since: int | None) -> None:
        """
        Read and replay; returns when nothing is on its way any more.

        Args:
            at_most: messages to look at, besides those that are certainly not of those that were there at first.
            since: when the first reading of the queue began, in ms since the epoch; None: this is the first. What a
                replay that began later has replayed is passed over.
        """
        self._since = since
        taking = asyncio.create_task(self._take(at_most), name="amqpflow replay reading")
        try:
            await self._pump(taking)
        finally:
            self._put_back()
            self._reader.finish()
            await taking
            if self._proving is not None:
                self._proving.cancel()
                await asyncio.gather(self._proving, return_exceptions=True)
        self.cut_short = self._stop.is_set() and bool(self._waiting)
        if self._waiting and not self._stop.is_set() and not self._replay.stopped and not self._nowhere:
            self.again = True
        self.again = self.again or self._reader.held_too_long

    # -- taking

    async def _take(self, at_most: int) -> None:
        known, window = self._replay.interrupted, self._limiter.window(WINDOW)
        # what came back may lie before what was there, so that all of the queue may have to be looked at
        wanted = self._reader.ready if at_most else 0
        try:
            async with aclosing(
                self._reader.arrivals(at_most=wanted, window=2 * window, busy=self._is_busy)
            ) as arrivals:
                async for batch in arrivals:
                    for delivery in batch:
                        if self._were_there >= at_most or (self._has_enough() and not known):
                            self._reader.keep(delivery)
                        else:
                            self._sort(delivery)
                    self._news.set()
                    if (
                        self._replay.stopped
                        or self._nowhere
                        or self._were_there >= at_most
                        or (self._has_enough() and not known)
                    ):
                        break
        except (BrokerUnavailableError, BrokerError) as error:
            self._replay.halt(str(error), "replay again to go on")
        finally:
            self._news.set()

    @property
    def _were_there(self) -> int:
        """Of those that were looked at, as many as may have been there at first."""
        return self.looked_at - self.came_back - self.brought_back

    def _has_enough(self) -> bool:
        """As many were selected as were asked for; what interrupted replays sent is still to be taken out."""
        return self._left is not None and self._selected >= self._left

    def _is_busy(self) -> bool:
        return bool(self._waiting or self._outbox.outstanding or self._resend or self._settled or self._to_ack)

    def _sort(self, delivery: Delivery) -> None:
        replay, reader = self._replay, self._reader
        unreadable = reader.unreadable.get(delivery.delivery_tag)
        parked = read_parked(delivery, replay.compiled.routes, unreadable=unreadable, origin=replay.choice.origin)
        known = replay.interrupted
        self.looked_at += 1
        self.new += bool(parked.priority) and parked.failed_at is not None and parked.failed_at > replay.context.at
        if unreadable is not None:
            replay.leave_unread(parked, unreadable)
        if unreadable is not None or replay.was_left(parked) or not self._is_selected(parked):
            reader.keep(delivery)
            if unreadable is None and known:
                known.pass_over(parked_digest(delivery).hex())
            return
        if known and self._is_settled(parked):
            return
        counts = delivery.delivery_tag not in self._again  # the others are in what the limit leaves of it
        if counts and self._has_enough():
            reader.keep(delivery)
            return
        if self._waiting.size > WAITING_BYTES:
            reader.keep(delivery)
            self.again = True
            return
        self._selected += counts
        self._waiting.add(parked, self._loop.time())

    def _is_settled(self, parked: ParkedMessage) -> bool:
        """Look up what interrupted replays did with it: is it only to be taken out, or to be left?"""
        replay, known = self._replay, self._replay.interrupted
        sent = known.take(replay.name(parked))
        if sent is None and not known.was_sent_of_old(lambda: replayed_hop(parked, replay.context)):
            return False
        if sent is not None and known.proves(sent, parked):
            self._settled.append((parked, sent))
            return True
        if replay.choice.in_doubt == "hold":
            replay.pass_ordinal(parked)
            self._reader.keep(parked.delivery)
            known.pass_over(parked_digest(parked.delivery).hex())
            replay.leave(parked, "an interrupted replay may have sent it; --in-doubt send sends it", in_doubt=True)
            return True
        if sent is not None:
            if sent.by.file is replay.journal and sent.number not in sent.by.state.in_doubt:
                self._again[parked.delivery.delivery_tag] = sent.number
            known.use((sent,))
        self._sent_before.add(parked.delivery.delivery_tag)
        return False

    def _is_selected(self, parked: ParkedMessage) -> bool:
        replay, report = self._replay, self._replay.report
        mark = parked.record.replay if parked.record else None
        if mark is not None and mark.id == replay.context.id:
            self.came_back += 1
            return False
        if self._since is not None and mark is not None and mark.at is not None and mark.at > self._since:
            self.brought_back += 1
            return False
        choice = replay.choice
        if choice.lacks_origin(parked, everything=replay.queues is None):
            report.unknown_origin += 1
            return False
        if replay.destination(parked) is None or not choice.selects(parked) or not self._is_allowed(parked):
            report.others += 1
            report.misplaced += is_misplaced(parked, replay.compiled)
            return False
        return True

    def _is_allowed(self, parked: ParkedMessage) -> bool:
        """Is it one of those that were asked for one by one? Of equal ones, as many are as were asked for."""
        if self._allowed is None:
            return True
        digest = parked_digest(parked.delivery)
        self._allowed[digest] -= 1
        return self._allowed[digest] >= 0

    # -- sending and settling

    async def _pump(self, taking: asyncio.Task[None]) -> None:
        while True:
            self._news.clear()
            self._give_up_waiting()
            confirmed, self._outbox.confirmed = self._outbox.confirmed, []
            self._mind_failures()
            await self._send_again()
            batch = [] if self._is_over() else self._prepared or await self._next_batch()
            self._prepared = [] if batch else self._prepared
            if confirmed or batch or self._settled or self._to_ack:
                await self._do(batch, confirmed)
                continue
            settled = self._outbox.confirmed or self._outbox.failed
            on_its_way = self._outbox.outstanding or self._resend or settled or self._to_ack
            if not on_its_way and (self._is_over() or (taking.done() and not self._waiting)):
                return
            await self._sleep()

    def _is_over(self) -> bool:
        """Nothing more is sent in this reading."""
        if self._waiting and self._loop.time() - self._waiting.since >= self._reader.hold_max:
            self._reader.end_of_holding()
        if self._limiter.wants_look:
            self.again = True
            self._reader.finish()
        if self._nowhere:
            self._reader.finish()
        is_stopped = self._stop.is_set() or self._replay.stopped or self._nowhere
        return is_stopped or self._reader.held_too_long or self._limiter.wants_look

    async def _do(self, batch: list[PendingReplay], confirmed: list[PendingReplay]) -> None:
        replay, reader = self._replay, self._reader
        if batch:
            replay.intend(batch, [self._again[each.tag] for each in batch if each.tag in self._again])
            replay.report.sent_again += sum(each.tag in self._sent_before for each in batch)
        acking, self._to_ack = self._to_ack, []
        settled, self._settled = self._settled, []
        if acking:
            replay.acking(acking)
        if settled:
            replay.interrupted.use(sent for _, sent in settled)
        if confirmed:
            self._last_success = self._loop.time()
            self._successes |= dict.fromkeys((each.address for each in confirmed), self._last_success)
            self._resend_wait = _RESEND.first
            replay.step("publish.confirmed")
            replay.confirm(confirmed)
        writing = asyncio.ensure_future(replay.write())
        if batch:
            # the next ones are made ready while the disk writes
            await asyncio.sleep(0)
            self._prepared = await self._next_batch(behind=batch)
        try:
            await writing
        except OSError as error:
            why = f"the journal cannot be written any more: {error.strerror or error}"
            replay.halt(why, "make room, replay again")
            batch = []
            acking, settled = self._without_journal(acking, settled, confirmed, why)
        else:
            if replay.journal is None:
                acking += confirmed
            else:
                self._to_ack += confirmed
        if batch:
            replay.step("publish.before")
            await self._outbox.send(batch)
            replay.step("publish.after")
            self._limiter.sent(len(batch))
        self._ack(acking, settled)
        if self._on_progress is not None:
            report = replay.report
            self._on_progress(reader.queue, report.replayed + report.failed + report.in_doubt, reader.ready)

    def _without_journal(
        self,
        acking: list[PendingReplay],
        settled: list[tuple[ParkedMessage, InterruptedSend]],
        confirmed: list[PendingReplay],
        why: str,
    ) -> tuple[list[PendingReplay], list[tuple[ParkedMessage, InterruptedSend]]]:
        """
        The journal took no more lines: return what may be acked all the same.

        What it does not call confirmed may be acked: no replay believes that it is parked. The rest stays parked, for
        the next replay to take out: of what the journal takes for parked one must be.
        """
        journal = self._replay.journal
        is_torn = journal is None or journal.is_torn or journal.failed is None
        for parked in (*(each.parked for each in acking), *(each for each, _ in settled)):
            self._reader.keep(parked.delivery)
            self._replay.leave(parked, f"{why}; its copy is confirmed", in_doubt=True)
        if is_torn:
            for pending in confirmed:
                self._reader.keep(pending.parked.delivery)
                self._replay.leave(pending.parked, f"{why}; its copy is confirmed", in_doubt=True)
            return [], []
        return confirmed, []

    def _ack(self, pendings: list[PendingReplay], settled: list[tuple[ParkedMessage, InterruptedSend]]) -> None:
        """Take out of the queue what was replayed. The journal says that it is about to be."""
        replay = self._replay
        done = [each.tag for each in pendings] + [each.delivery.delivery_tag for each, _ in settled]
        if not done:
            return
        replay.step("ack.before")
        acked = self._acked(done)
        replay.step("ack.after")
        if acked:
            replay.resolve(pendings)
            replay.replayed(pendings)
            replay.interrupted.acked(sent for _, sent in settled)
            replay.report.already += len(settled)
            self.gone += len(done)
            self._prove()
            return
        why = "the channel was closed, or the reading ended, before its ack"
        if acked is False:
            replay.not_acked(pendings)
            replay.interrupted.not_acked(sent for _, sent in settled)
        for parked in (*(each.parked for each in pendings), *(each for each, _ in settled)):
            replay.leave(parked, why, in_doubt=True)

    def _acked(self, tags: list[int]) -> bool | None:
        """Ack them; False when none could be, None when it is not known."""
        try:
            return self._reader.ack_all(tags)
        except BrokerUnavailableError:
            return None

    async def _next_batch(self, *, behind: Sequence[PendingReplay] = ()) -> list[PendingReplay]:
        """
        Return messages that may be sent.

        A return names exchange, routing key and hop: of two copies that are the same in those, the second waits for
        the first, and others pass both.

        Args:
            behind: what is about to be sent before them.
        """
        if self._resend or not self._waiting:
            return []
        reserved = len(behind)
        on_its_way = self._outbox.outstanding or reserved
        if on_its_way and not (self._outbox.has_confirmed and self._outbox.is_open):
            return []  # the first goes alone: what closes the channel makes no other uncertain
        try:
            allowed = await self._limiter.allowance(self._loop.time())
        except AmqpflowError as error:
            # what is on its way has to be settled all the same, and what is being written has to be awaited
            self._replay.halt(str(error), getattr(error, "hint", "") or "replay again to go on")
            return []
        room = min(BATCH, WINDOW - self._outbox.outstanding - reserved, allowed - reserved)
        room = min(room, 1) if not self._outbox.has_confirmed else room
        if room < min(_GROUP, self._waiting.ready) and on_its_way:
            return []  # more room comes with the confirms that are on their way
        batch: list[PendingReplay] = []
        sending = {each.copy.returned_as for each in behind}
        self._waiting.release(lambda same: same not in sending and not self._outbox.is_outstanding(same))
        for _ in range(BATCH):  # of a long row of equals no more are looked at in one turn of the loop
            if len(batch) == room or (taken := self._waiting.take()) is None:
                break
            parked, since = taken
            pending = self._prepare(parked)
            if pending is None:
                continue
            same = pending.copy.returned_as
            if same in sending or self._outbox.is_outstanding(same):
                self._replay.next_number -= 1
                self._waiting.set_aside(same, parked, since)
                continue
            self._replay.count(parked)
            self._replay.report.taken += pending.tag not in self._again
            sending.add(same)
            batch.append(pending)
        return batch

    def _put_back(self) -> None:
        """What was made ready and is not sent waits again, for the next reading."""
        for pending in reversed(self._prepared):
            self._replay.uncount(pending.parked)
            self._waiting.add(pending.parked, self._loop.time())
        self._replay.report.taken -= sum(each.tag not in self._again for each in self._prepared)
        self._prepared = []

    def _prepare(self, parked: ParkedMessage) -> PendingReplay | None:
        replay = self._replay
        destination = replay.destination(parked)
        assert destination is not None  # noqa: S101 - it was selected
        if (closed := replay.closed.get((destination.exchange, destination.routing_key))) is not None:
            self._reader.keep(parked.delivery)
            replay.leave(parked, closed)
            return None
        ordinal = replay.ordinal(parked)
        why = "its headers leave no room for a failure record in a frame"
        try:
            copy = replay_publish(parked, destination, replay.context, ordinal=ordinal)
        except (ValueError, TypeError, RecursionError) as error:
            copy, why = None, f"it cannot be encoded: {error}"
        if copy is None:
            self._reader.keep(parked.delivery)
            replay.leave(parked, why)
            return None
        return PendingReplay(number=replay.number(), parked=parked, copy=copy, key=(copy.identity, replay.name(parked)))

    # -- what goes wrong

    def _give_up_waiting(self) -> None:
        """Leave what has had no confirm for too long; what has one meanwhile goes on."""
        oldest = self._outbox.oldest_sent_at
        until = self._loop.time() - CONFIRM_TIMEOUT
        if oldest is None or oldest > until:
            return
        unconfirmed, why = self._outbox.give_up(until), f"no confirm within {CONFIRM_TIMEOUT:.0f} s"
        if blocked := self._outbox.blocked:
            why = f"{why}: the broker takes no publishes: {blocked}"
        self._leave(unconfirmed, why, in_doubt=True)
        if blocked:
            self._replay.halt(why, "replay again to go on")
        for address in dict.fromkeys(each.address for each in unconfirmed):
            self._close(address, f"{address[1]}: {why}", "replay again to go on")

    def _mind_failures(self) -> None:
        failed, self._outbox.failed = self._outbox.failed, []
        for pending, error in failed:
            if isinstance(error, PublishRefusedError) and not isinstance(error, PublishForbiddenError):
                self._mind_refusal(pending)
            elif isinstance(error, PublishError):
                self._mind_failure(pending, error)
            else:  # whether it was sent or not: a second copy has the same hop id
                self._send_later(pending, error)

    def _mind_failure(self, pending: PendingReplay, error: PublishError) -> None:
        self._replay.step("publish.returned")
        exchange, key = pending.address
        if isinstance(error, UnroutableError):
            ours = exchange == self._replay.compiled.retry_exchange
            self._leave([pending], f"no queue for routing key {key!r} on exchange {exchange!r}")
            self._close(
                pending.address,
                f"{exchange or 'the default exchange'} has no way to {key}: {error}",
                f"amqpflow apply {shlex.quote(self._replay.compiled.file)}" if ours else "create the destination first",
            )
            return
        self._leave([pending], str(error))
        if isinstance(error, PublishForbiddenError):
            self._close(pending.address, str(error), error.hint)

    def _mind_refusal(self, pending: PendingReplay) -> None:
        self._replay.step("publish.refused")
        if self._may_be_in_several_queues():
            self._leave([pending], _REFUSED, in_doubt=True)
            where = f"a queue behind {pending.copy.exchange}"
            self._close(pending.address, f"{where} takes no more messages: {_REFUSED}", "replay again when it does")
        else:
            self._send_later(pending, None)

    def _send_later(self, pending: PendingReplay, error: AmqpflowError | None) -> None:
        """Send it again, as long as there is hope: None: it was refused."""
        if not self._resend:
            self._resend_at = self._loop.time() + self._resend_wait
            self._resend_wait = _RESEND.after(self._resend_wait)
        self._resend.append((pending, error))

    async def _send_again(self) -> None:
        if not self._resend or self._outbox.outstanding:
            return
        again: list[tuple[PendingReplay, AmqpflowError | None]] = []
        for pending, error in self._resend:
            if self._may_send_again(pending, error):
                again.append((pending, error))
            else:
                self._give_up(pending, error)
        self._resend = again
        if again and self._loop.time() >= self._resend_at:
            again.sort(key=lambda each: each[0].number)
            first, self._resend = again[:BATCH], again[BATCH:]
            await self._outbox.send([each for each, _ in first])

    def _may_send_again(self, pending: PendingReplay, error: AmqpflowError | None) -> bool:
        if self._stop.is_set() or self._replay.stopped or pending.address in self._replay.closed:
            return False
        since = self._loop.time() - (self._last_success if error else self._successes.get(pending.address, self._begun))
        return since < (RECONNECT_WITHIN if error else PATIENCE)

    def _give_up(self, pending: PendingReplay, error: AmqpflowError | None) -> None:
        if error is not None:
            self._leave([pending], str(error), in_doubt=pending.is_uncertain)
            self._replay.halt(str(error), "replay again to go on")
            return
        self._leave([pending], _REFUSED, in_doubt=pending.is_uncertain)
        if not (self._stop.is_set() or self._replay.stopped):
            why = f"{pending.copy.routing_key} takes no more messages: {_REFUSED}"
            self._close(pending.address, why, "replay again when it does")

    def _may_be_in_several_queues(self) -> bool:
        """An exchange may bring a copy to several queues: one that refuses it says nothing of the others."""
        to = self._replay.choice.to
        return to is not None and to.queue is None

    def _close(self, address: Address, why: str, hint: str) -> None:
        """Send nothing there any more. The others go on."""
        self._replay.close(address, why, hint)
        self._nowhere = self._nowhere or all(each in self._replay.closed for each in self._replay.addresses_here())

    def _leave(self, pendings: list[PendingReplay], why: str, *, in_doubt: bool = False) -> None:
        for pending in pendings:
            self._reader.keep(pending.parked.delivery)
            self._replay.leave(pending.parked, why, in_doubt=in_doubt)
        if not in_doubt:
            self._replay.resolve(pendings, left=True)

    # -- waiting, proving

    async def _sleep(self) -> None:
        if self._news.is_set():
            return
        now = self._loop.time()
        until = [1.0]
        if self._resend:
            until.append(self._resend_at - now)
        if self._waiting:
            until.append(self._limiter.next_at - now)
            until.append(self._waiting.since + self._reader.hold_max - now)
        try:
            async with asyncio.timeout(max(0.005, min(until))):
                await self._news.wait()
        except TimeoutError:
            pass

    def _prove(self) -> None:
        """Find out now and then which acks RabbitMQ has taken, so that a resumed replay need not remember them."""
        now = self._loop.time()
        if now < self._prove_at or (self._proving is not None and not self._proving.done()):
            return
        self._prove_at = now + PROVE_EVERY
        # a quorum queue may apply an ack a moment after it was read: what is proven is what was acked one round before
        provable, self._provable = self._provable, self._replay.resolved_up_to
        self._proving = asyncio.create_task(self._prove_up_to(provable), name="amqpflow replay proof")

    async def _prove_up_to(self, number: int) -> None:
        try:
            await self._reader.prove()
        except AmqpflowError:
            return  # the reading finds out itself
        self._replay.prove(number)
