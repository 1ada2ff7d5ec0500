"""Replay the messages of one reading of a parking queue.

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
from dataclasses import dataclass

from amqpflow.errors import AmqpflowError, BrokerUnavailableError
from amqpflow.parking.parked import ParkedMessage
from amqpflow.services.reading.reader import ParkingReader
from amqpflow.services.reading.target import ReadTarget

from .interrupted_sends import InterruptedSend
from .outbox import PendingReplay, ReplayOutbox
from .rate_limiter import RateLimiter
from .sending import ReplaySender
from .sorting import MessageSorter
from .state import ReplayState

PROVE_EVERY = 2.0  #: seconds


@dataclass
class QueuePass:
    """One reading."""

    replay: ReplayState
    reader: ParkingReader
    outbox: ReplayOutbox
    limiter: RateLimiter
    target: ReadTarget
    news: asyncio.Event
    again: bool = False  #: another reading has to follow
    gone: int = 0  #: messages that it took out of the queue
    cut_short: bool = False  #: stopped while messages were waiting

    def __post_init__(self) -> None:
        self.sorter = MessageSorter(self.replay, self.reader, self.news)
        self._stop = self.target.stop
        self._waiting = self.sorter.waiting
        self._sender = ReplaySender(self.replay, self.reader, self.outbox, self.limiter, self.sorter, self._stop)
        self._prepared: list[PendingReplay] = []  # to be sent next
        self._to_ack: list[PendingReplay] = []  # the journal says that they are confirmed
        self._loop = asyncio.get_running_loop()
        self._proving: asyncio.Task[None] | None = None
        self._prove_at = self._loop.time() + PROVE_EVERY
        self._provable = 0

    async def run(self, *, at_most: int, since: int | None) -> None:
        """Read and replay; return when nothing is outstanding. Arguments as for `MessageSorter.run`."""
        sorting = self.sorter.run(
            at_most=at_most,
            since=since,
            window=self._sender.window,
            busy=self._is_busy,
            is_over=lambda: self.replay.stopped or self._sender.has_nowhere,
        )
        taking = asyncio.create_task(sorting, name="amqpflow replay reading")
        try:
            await self._pump(taking)
        finally:
            self._sender.put_back(self._prepared)
            self._prepared = []
            self.reader.finish()
            await taking
            if self._proving is not None:
                self._proving.cancel()
                await asyncio.gather(self._proving, return_exceptions=True)
        self.cut_short = self._stop.is_set() and bool(self._waiting)
        if self._waiting and not self._stop.is_set() and not self.replay.stopped and not self._sender.has_nowhere:
            self.again = True
        self.again = self.again or self.sorter.has_deferred or self.reader.held_too_long

    def _is_busy(self) -> bool:
        return bool(
            self._waiting or self.outbox.outstanding or self._sender.resends or self.sorter.settled or self._to_ack
        )

    async def _pump(self, taking: asyncio.Task[None]) -> None:
        while True:
            self.news.clear()
            self._sender.give_up_waiting()
            confirmed, self.outbox.confirmed = self.outbox.confirmed, []
            self._sender.handle_failures()
            await self._sender.send_again()
            batch = [] if self._is_over() else self._prepared or await self._sender.next_batch()
            self._prepared = [] if batch else self._prepared
            if confirmed or batch or self.sorter.settled or self._to_ack:
                await self._advance(batch, confirmed)
                continue
            settled = self.outbox.confirmed or self.outbox.failed
            on_its_way = self.outbox.outstanding or self._sender.resends or settled or self._to_ack
            if not on_its_way and (self._is_over() or (taking.done() and not self._waiting)):
                return
            await self._sleep()

    def _is_over(self) -> bool:
        """Tell whether nothing more is sent in this reading."""
        if self._waiting and self._loop.time() - self._waiting.since >= self.reader.hold_max:
            self.reader.end_of_holding()
        if self.limiter.wants_look:
            self.again = True
            self.reader.finish()
        if self._sender.has_nowhere:
            self.reader.finish()
        is_stopped = self._stop.is_set() or self.replay.stopped or self._sender.has_nowhere
        return is_stopped or self.reader.held_too_long or self.limiter.wants_look

    async def _advance(self, batch: list[PendingReplay], confirmed: list[PendingReplay]) -> None:
        replay, reader = self.replay, self.reader
        if batch:
            before = self.sorter.numbers_before
            replay.intend(batch, [before[each.tag] for each in batch if each.tag in before])
            replay.report.sent_again += sum(each.tag in self.sorter.sent_before for each in batch)
        acking, self._to_ack = self._to_ack, []
        settled, self.sorter.settled = self.sorter.settled, []
        if acking:
            replay.acking(acking)
        if settled:
            replay.interrupted.use(sent for _, sent in settled)
        if confirmed:
            self._sender.succeeded(confirmed)
            replay.step("publish.confirmed")
            replay.confirm(confirmed)
        writing = asyncio.ensure_future(replay.write())
        if batch:
            # the next ones are made ready while the disk writes
            await asyncio.sleep(0)
            self._prepared = await self._sender.next_batch(behind=batch)
        try:
            await writing
        except OSError as error:
            why = f"cannot write the journal any more: {error.strerror or error}"
            replay.halt(why, "free disk space, then replay again to continue")
            batch = []
            acking, settled = self._without_journal(acking, settled, confirmed, why)
        else:
            if replay.journal is None:
                acking += confirmed
            else:
                self._to_ack += confirmed
        if batch:
            replay.step("publish.before")
            await self.outbox.send(batch)
            replay.step("publish.after")
            self.limiter.sent(len(batch))
        self._ack(acking, settled)
        report = replay.report
        self.target.progress(reader.queue, report.replayed + report.failed + report.in_doubt, reader.ready)

    def _without_journal(
        self,
        acking: list[PendingReplay],
        settled: list[tuple[ParkedMessage, InterruptedSend]],
        confirmed: list[PendingReplay],
        why: str,
    ) -> tuple[list[PendingReplay], list[tuple[ParkedMessage, InterruptedSend]]]:
        """Return what may be acked although the journal took no more lines.

        What it does not call confirmed may be acked: no replay believes that it is parked. The rest stays parked, for
        the next replay to take out: of what the journal takes for parked one must be.
        """
        journal = self.replay.journal
        is_torn = journal is None or journal.is_torn or journal.failed is None
        for parked in (*(each.parked for each in acking), *(each for each, _ in settled)):
            self.reader.keep(parked.delivery)
            self.replay.leave(parked, f"{why}; its copy is confirmed", in_doubt=True)
        if is_torn:
            for pending in confirmed:
                self.reader.keep(pending.parked.delivery)
                self.replay.leave(pending.parked, f"{why}; its copy is confirmed", in_doubt=True)
            return [], []
        return confirmed, []

    def _ack(self, pendings: list[PendingReplay], settled: list[tuple[ParkedMessage, InterruptedSend]]) -> None:
        """Ack replayed messages. The journal says that they are about to be acked."""
        replay = self.replay
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
            return self.reader.ack_all(tags)
        except BrokerUnavailableError:
            return None

    # -- waiting, proving

    async def _sleep(self) -> None:
        if self.news.is_set():
            return
        now = self._loop.time()
        until = [1.0]
        if self._sender.resends:
            until.append(self._sender.resend_at - now)
        if self._waiting:
            until.append(self.limiter.next_at - now)
            until.append(self._waiting.since + self.reader.hold_max - now)
        try:
            async with asyncio.timeout(max(0.005, min(until))):
                await self.news.wait()
        except TimeoutError:
            pass

    def _prove(self) -> None:
        """Find out now and then which acks RabbitMQ has taken, so that a resumed replay need not remember them."""
        now = self._loop.time()
        if now < self._prove_at or (self._proving is not None and not self._proving.done()):
            return
        self._prove_at = now + PROVE_EVERY
        # a quorum queue may apply an ack a moment after it was read: the acks of one round before are proven
        provable, self._provable = self._provable, self.replay.resolved_up_to
        self._proving = asyncio.create_task(self._prove_up_to(provable), name="amqpflow replay proof")

    async def _prove_up_to(self, number: int) -> None:
        try:
            await self.reader.prove()
        except AmqpflowError:
            return  # the reading finds out itself
        self.replay.prove(number)
