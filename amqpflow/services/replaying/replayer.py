"""Replay parked messages to the queues they failed in, reading after reading, until all are sent.

`queue_pass` moves messages without losing any, `interrupted_sends` knows what earlier replays sent, and `reparked`
counts what came back. This module says which queues are read, and how often.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from amqpflow.errors import AmqpflowError, StoppedError, UsageError
from amqpflow.model.routes import CompiledTopology, QueueRoutes
from amqpflow.parking.journal import JournalState
from amqpflow.parking.replay import Destination, ReplayContext
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.rabbitmq.observe import Broker
from amqpflow.services.reading.open_reading import open_reading
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import ReadTarget
from amqpflow.version import __version__

from .depths import Depths
from .journal_files import Journals
from .kept_request import kept_request, resumed_request
from .outbox import Address, ReplayOutbox
from .plan import plan_replay, routes_of
from .queue_pass import QueuePass
from .rate_limiter import RateLimiter
from .reparked import OnWatch, ReparkedMessages
from .report import ReplayReport
from .request import ReplayRequest, with_matcher
from .run_journal import ReplayJournal, require_resumable
from .sending import WINDOW
from .state import ReplayState


async def replay_parked(
    broker: Broker,
    compiled: CompiledTopology,
    queue: str | Sequence[str] | None = None,
    *,
    choice: ReplayRequest | None = None,
    journals: Journals | None = None,
    resume: JournalState | None = None,
    options: ReadOptions | None = None,
    on_watch: OnWatch | None = None,
    on_step: Callable[[str], None] | None = None,
) -> ReplayReport:
    """Replay parked messages in the order in which RabbitMQ delivers them.

    It takes no more messages than there were when it began, and none that a replay brought back since: this one, or
    another that began later. Publishing has a connection of its own.

    Arguments and errors are those of `Client.replay`; without `journals` none is kept, and `resume` is a journal's
    state.
    """
    options = options or ReadOptions()
    if resume is not None:
        require_resumable(resume)
        queue, choice = resumed_request(resume, queue, choice, compiled)
    choice = with_matcher(choice or ReplayRequest(), compiled)
    if choice.only is None and (choice.sample is not None or choice.id_prefixes):
        silent = replace(options, on_progress=None)
        plan = await plan_replay(broker, compiled, queue, choice=choice, options=silent)
        choice = replace(choice, only=plan.only)
    routes = await routes_of(broker, compiled, queue)
    target = ReadTarget(
        broker=broker,
        compiled=compiled,
        queues=tuple(dict.fromkeys(each.parking_queue for each in routes)),
        options=replace(options, origin=choice.origin),
    )
    replay = _Replay(
        target=target, routes=routes, everything=queue is None, choice=choice, on_watch=on_watch, on_step=on_step
    )
    journal = ReplayJournal(journals, resume, kept_request(queue, choice))
    return await replay.run(journal)


@dataclass(kw_only=True)
class _Replay:
    target: ReadTarget
    routes: Sequence[QueueRoutes]
    everything: bool
    choice: ReplayRequest
    on_watch: OnWatch | None
    on_step: Callable[[str], None] | None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.broker, self.compiled, self.parking_queues = self.target.broker, self.target.compiled, self.target.queues
        self.stop = self.target.stop
        self.depths = Depths(self.broker.connection, self.routes, self.choice.to, self.parking_queues)
        self.limiter = RateLimiter(self.choice, self.depths.fullest, asyncio.get_running_loop().time())
        self.unseen: set[str] = set()  #: parking queues of which others held a part
        self.passed: list[str] = []  #: why messages that were there when it began were not read
        self.begun = False
        self.since: dict[str, int] = {}  #: when the first reading of a parking queue began, ms since the epoch
        self.brought_back: dict[str, int] = {}  #: by others, meanwhile, by parking queue

    async def run(self, journal: ReplayJournal) -> ReplayReport:
        started = time.monotonic()
        self.journal = journal
        self.state = ReplayState(
            compiled=self.compiled,
            context=self._context(journal),
            choice=self.choice,
            report=self._report(journal),
            place=(self.broker.connection.cluster_name, self.broker.address.vhost),
            address=f"{self.broker.address.host}:{self.broker.address.port}",
            queues=None if self.everything else frozenset(each.queue for each in self.routes),
            addresses=frozenset(self._addresses()),
            on_step=self.on_step,
        )
        self.reparked = ReparkedMessages(self.state, self.target, self.limiter, self.depths, self.news)
        outbox = ReplayOutbox(self._publishing, self.news)
        waking = asyncio.create_task(self._wake_when_stopped(), name="amqpflow replay stop")
        try:
            await outbox.open()
            await journal.begin(self.state, self.parking_queues, await self.depths.parked())
            for parking_queue in self.parking_queues:
                if self._wants_more():
                    await self._replay(parking_queue, outbox)
            for why in self.passed:
                self.state.halt(why, "replay again to continue")
            if self.on_watch is not None and not (self.state.stopped or self.stop.is_set()):
                try:
                    await self.reparked.watch(self.on_watch)
                except AmqpflowError as error:
                    self.state.report.notes.append(f"the destinations were not watched to the end: {error}")
            self._finish(time.monotonic() - started)
            await journal.end(self.state, read_whole=self._read_whole(), held_by_others=bool(self.unseen))
            return self.state.report
        finally:
            # a journal without a last line keeps messages in doubt
            journal.close(self.state.interrupted)
            waking.cancel()
            await asyncio.gather(waking, return_exceptions=True)
            await outbox.close()

    # -- one parking queue

    def _wants_more(self) -> bool:
        """Return whether another reading should begin. One that stop keeps from beginning makes it interrupted."""
        report, limit = self.state.report, self.choice.limit
        if self.state.stopped:
            return False
        if self.stop.is_set():
            report.interrupted = report.interrupted or limit is None or report.taken < limit
            return False
        return True

    def _passed_over(self, queue_pass: QueuePass) -> bool:
        """Tell whether messages that were parked meanwhile have taken the place of some that were there."""
        limit, report = self.choice.limit, self.state.report
        if (
            queue_pass.again
            or self.stop.is_set()
            or self.state.stopped
            or (limit is not None and report.taken >= limit)
        ):
            return False
        return (
            queue_pass.sorter.new > 0
            and (queue_pass.reader.ready_after or 0) > queue_pass.sorter.looked_at - queue_pass.gone
        )

    async def _replay(self, parking_queue: str, outbox: ReplayOutbox) -> None:
        state, total, gone = self.state, None, 0
        here = [each for each in self.routes if each.parking_queue == parking_queue]
        state.destinations = {each.queue: Destination.of(each) for each in here}
        report = state.report
        untouched = report.others, report.misplaced, report.unknown_origin
        while True:
            queue_pass = await self._read_once(parking_queue, outbox, total, gone)
            if queue_pass is None:
                return
            total = queue_pass.reader.ready if total is None else total
            gone += queue_pass.gone
            report.came_back = max(report.came_back, queue_pass.sorter.came_back)
            self.brought_back[parking_queue] = max(
                self.brought_back.get(parking_queue, 0), queue_pass.sorter.brought_back
            )
            if self.limiter.wants_look and not (self.stop.is_set() or state.stopped):
                try:
                    await self.reparked.look()
                except AmqpflowError as error:
                    self._stop_for(error)
            elif queue_pass.again and not queue_pass.gone and not state.stopped and not self.stop.is_set():
                state.halt(
                    queue_pass.reader.ended_early
                    or "no message to replay came within the time that messages may be held",
                    "replay again to continue",
                )
            if not queue_pass.again or not self._wants_more():
                return
            # those of this queue are seen again
            report.others, report.misplaced, report.unknown_origin = untouched

    async def _read_once(
        self, parking_queue: str, outbox: ReplayOutbox, total: int | None, gone: int
    ) -> QueuePass | None:
        state = self.state
        try:
            async with open_reading(self.target, parking_queue) as reader:
                self.begun = True
                await self.journal.look_again(self.state)  # who was reading before us may have died since
                queue_pass = QueuePass(state, reader, outbox, self.limiter, self.target, self.news)
                guard = asyncio.create_task(self.reparked.guard(reader), name="amqpflow replay guard")
                try:
                    since = self.since.get(parking_queue)
                    self.since.setdefault(parking_queue, time.time_ns() // 1_000_000)
                    await queue_pass.run(at_most=max(0, (reader.ready if total is None else total) - gone), since=since)
                finally:
                    guard.cancel()
                    await asyncio.gather(guard, return_exceptions=True)
                state.step("requeue.before")
            state.step("requeue.after")
        except AmqpflowError as error:
            if not self.begun:
                raise
            self._stop_for(error)
            return None
        state.report.notes += [note for note in reader.notes if note not in state.report.notes]
        self.state.remaining[parking_queue] = reader.ready_after
        if reader.other_consumers:
            self.unseen.add(parking_queue)  # an interrupted replay may have sent the messages that they hold
        else:
            self.unseen.discard(parking_queue)
        await self._end_of_reading(queue_pass)
        if reader.by_priority and self._passed_over(queue_pass):
            self.unseen.add(parking_queue)
            self.passed.append(
                f"{parking_queue} delivers higher priorities first: {queue_pass.sorter.new} messages that were parked "
                "meanwhile came before as many that were there"
            )
        return queue_pass

    def _stop_for(self, error: AmqpflowError) -> None:
        """End with a report, since something was done already."""
        if isinstance(error, StoppedError):
            self.state.report.interrupted = True
        else:
            self.state.halt(str(error), getattr(error, "hint", "") or "replay again to continue")

    async def _end_of_reading(self, queue_pass: QueuePass) -> None:
        state, reader = self.state, queue_pass.reader
        if self.stop.is_set() and (queue_pass.cut_short or reader.ended_early is not None):
            state.report.interrupted = True
        elif reader.ended_early and not reader.held_too_long:
            hint = "a larger prefetch reaches those behind them" if reader.is_full else "replay again to continue"
            state.halt(reader.ended_early, hint)
        if reader.unproven:
            state.halt(f"RabbitMQ may not have processed every ack: {reader.unproven}")
            state.report.notes.append(
                f"up to {min(state.report.replayed, WINDOW)} of the replayed messages may still be parked; "
                + ("the next replay takes them out" if state.journal else "replaying them again makes copies")
                + ("" if state.journal else " with the same hop id")
            )
        else:
            state.prove(state.resolved_up_to)
            state.interrupted.prove()
        try:
            await state.write()
        except OSError as error:
            state.halt(f"cannot write the journal any more: {error.strerror or error}")

    # -- the whole

    def _context(self, journal: ReplayJournal) -> ReplayContext:
        return ReplayContext(
            id=journal.id,
            at=time.time_ns() // 1_000_000,
            host=journal.host,
            version=__version__,
            frame_max=self.broker.connection.frame_max,
            our_queues=frozenset(self.compiled.desired.queues) | frozenset(self.compiled.routes),
            keep_attempts=self.choice.keep_attempts,
            set_headers=self.choice.set_headers,
            drop_headers=self.choice.drop_headers,
        )

    def _addresses(self) -> Iterator[Address]:
        destinations = [Destination.of(each) for each in self.routes] if self.choice.to is None else [self.choice.to]
        for each in destinations:
            yield each.exchange, each.routing_key

    def _report(self, journal: ReplayJournal) -> ReplayReport:
        if self.choice.max_depth is not None and self.choice.to is not None and self.choice.to.queue is None:
            raise UsageError(f"`max_depth` needs a queue to look at, and {self.choice.to.label} is an exchange and key")
        return ReplayReport(
            topology=self.compiled.name,
            queues=tuple(each.queue for each in self.routes),
            parking_queues=self.parking_queues,
            replay_id=journal.id,
            to=self.choice.to.label if self.choice.to else None,
        )

    def _finish(self, seconds: float) -> None:
        report = self.state.report
        report.seconds = seconds
        if brought_back := sum(self.brought_back.values()):
            report.notes.append(
                f"{brought_back} messages that another replay took meanwhile are parked again, and were not replayed"
            )
        known = [each for each in self.state.remaining.values() if each is not None]
        report.remaining = sum(known) if len(known) == len(self.parking_queues) else None

    def _read_whole(self) -> bool:
        """Tell whether every parked message that an interrupted replay sent was seen."""
        report = self.state.report
        return (
            report.settled
            and self.choice.limit is None
            and len(self.state.remaining) == len(self.parking_queues)
            and not self.unseen
        )

    async def _wake_when_stopped(self) -> None:
        await self.stop.wait()
        self.news.set()

    async def _publishing(self) -> Connection:
        name = f"amqpflow replay {self.compiled.name}: publishing"
        return await connect(self.broker.address, name=name, beside=self.broker.connection)
