"""Replay: publish to the work queue, await the confirm, ack in the parking queue. In this order, for each message.

For every await between two of these operations the answer to "what if the process dies here?" is: the message is still
in the parking queue, and replaying it again writes the same hop id. What is not replayed is given back where it was.
"""

from __future__ import annotations

import asyncio
import shlex
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from uuid import uuid4

from amqpflow import __version__
from amqpflow.errors import (
    BrokerError,
    BrokerUnavailable,
    PermissionDenied,
    PublishFailed,
    PublishRefused,
    PublishUncertain,
    Unroutable,
)
from amqpflow.model.message import Delivery, Publish
from amqpflow.model.routes import CompiledTopology, QueueRoutes
from amqpflow.parking.parked import ParkedMessage, read_parked
from amqpflow.parking.replay import ReplayRun, replay_publish
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.rabbitmq.observe import Broker

from .outbox import Outbox
from .parking import Progress, open_reading
from .parking_reader import ParkingReader
from .replay_plan import group_of, is_misplaced, ready_to_replay
from .replay_report import LeftBehind, ReplayReport

WINDOW = 200  #: publishes without a confirm at a time; a crash sends at most so many twice
CONFIRM_TIMEOUT = 30.0  #: seconds; a broker short of memory or disk does not confirm
PATIENCE = 5.0  #: seconds to wait for room in a work queue that is full, since it last took a message
REPORTED = 100  #: messages that are named in a report


async def replay_parked(
    broker: Broker,
    compiled: CompiledTopology,
    queue: str,
    *,
    limit: int | None = None,
    keep_attempts: bool = False,
    only: frozenset[bytes] | None = None,
    unverified: bool = False,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> ReplayReport:
    """
    Replay the parked messages of one work queue, oldest first.

    It ends with the message that was last when it began: what is parked meanwhile, be it again, is not touched.

    Args:
        broker: where to work. Publishing has a connection of its own.
        compiled: the topology.
        queue: the work queue.
        limit: how many messages at most.
        keep_attempts: go on counting attempts where the message stopped.
        only: digests to choose from, as `plan_replay` found them.
        unverified: read the parking queue also where it cannot be found out whether that is safe.
        stop: set it to stop: what is in flight is settled, the rest given back.
        on_progress: told after each message that is done with.
        on_wait: told once when another command is reading the queue, with its name.
        on_step: told before and after each broker operation.

    Returns:
        A report, also when it could not go on to the end.

    Raises:
        WrongUsage: no such work queue. NotApplied, Refused: nothing was done. Interrupted: stop was set while another
            command was reading; nothing was done.
        BrokerUnavailable, BrokerError, PermissionDenied: it could not begin; nothing was done.
    """
    stop = stop or asyncio.Event()
    routes = await ready_to_replay(broker, compiled, queue)
    outbox = Outbox(lambda: _publishing(broker, compiled))
    try:
        await outbox.open()
        async with open_reading(
            broker, compiled, routes.parking_queue, unverified=unverified, stop=stop, on_wait=on_wait
        ) as reading:
            replay = _Replay(
                reader=reading.reader,
                outbox=outbox,
                routes=routes,
                compiled=compiled,
                run=ReplayRun(
                    id=uuid4().hex[:12],
                    at=time.time_ns() // 1_000_000,
                    host=socket.gethostname(),
                    version=__version__,
                    frame_max=broker.connection.frame_max,
                    our_queues=frozenset(compiled.desired.queues) | frozenset(compiled.routes),
                    keep_attempts=keep_attempts,
                ),
                limit=limit,
                only=only,
                stop=stop,
                on_progress=on_progress,
                on_step=on_step,
            )
            await replay.go()
            replay.step("give-back.before")
        replay.step("give-back.after")
        return replay.finished(reading.notes)
    finally:
        await outbox.close()


@dataclass(kw_only=True)
class _Replay:
    reader: ParkingReader
    outbox: Outbox
    routes: QueueRoutes
    compiled: CompiledTopology
    run: ReplayRun
    limit: int | None
    only: frozenset[bytes] | None
    stop: asyncio.Event
    on_progress: Progress | None
    on_step: Callable[[str], None] | None

    def __post_init__(self) -> None:
        self.report = ReplayReport(
            topology=self.compiled.name,
            queue=self.routes.queue,
            parking_queue=self.routes.parking_queue,
            replay_id=self.run.id,
        )
        self.tasks: set[asyncio.Task[None]] = set()
        self.window = asyncio.Semaphore(WINDOW)
        self.halted = asyncio.Event()  # no message after the present ones can be replayed
        self.last_success = self.started = time.monotonic()
        self.anonymous: Counter[bytes] = Counter()
        self.cut_short = False

    # -- taking

    async def go(self) -> None:
        taken = 0
        limit = self.reader.ready if self.limit is None else self.limit
        try:
            async with aclosing(
                self.reader.deliveries(at_most=self.reader.ready, window=WINDOW, busy=lambda: bool(self.tasks))
            ) as deliveries:
                async for delivery in deliveries:
                    if taken >= limit or self.halted.is_set():
                        break
                    unreadable = self.reader.unreadable.get(delivery.delivery_tag)
                    parked = read_parked(delivery, self.compiled.routes, unreadable=unreadable)
                    if not self._is_selected(parked):
                        self.reader.keep(delivery)
                        continue
                    taken += 1
                    await self.window.acquire()
                    if self.halted.is_set() or self.stop.is_set():
                        self.window.release()
                        self.cut_short = True
                        break
                    self._begin(parked, delivery)
                    if taken == limit:
                        break
        except (BrokerUnavailable, BrokerError) as error:
            self._halt(str(error))
        finally:
            if self.tasks:
                await asyncio.wait(self.tasks)

    def _is_selected(self, parked: ParkedMessage) -> bool:
        mark = parked.record.replay if parked.record else None
        if mark is not None and mark.id == self.run.id:
            self.report.came_back += 1
            return False
        if parked.queue != self.routes.queue or (self.only is not None and parked.digest not in self.only):
            self.report.others += 1
            self.report.misplaced += is_misplaced(parked, self.compiled)
            return False
        return True

    def _begin(self, parked: ParkedMessage, delivery: Delivery) -> None:
        ordinal = self.anonymous[parked.digest]
        if not parked.message_id:
            self.anonymous[parked.digest] += 1
        why = "its headers leave no room for a failure record in a frame"
        try:
            publish = replay_publish(parked, self.routes, self.run, ordinal=ordinal)
        except (ValueError, TypeError, RecursionError) as error:
            publish, why = None, f"it cannot be encoded: {error}"
        if publish is None:
            self.window.release()
            self._leave(parked, delivery, why)
            return
        task = asyncio.create_task(self._replay(parked, delivery, publish))
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.window.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._halt(f"{type(error).__name__}: {error}")

    # -- one message

    async def _replay(self, parked: ParkedMessage, delivery: Delivery, publish: Publish) -> None:
        if await self._publish(parked, delivery, publish):
            self.step("ack.before")
            acked = self.reader.ack(delivery)
            self.step("ack.after")
            if acked:
                self.report.replayed += 1
                self.report.groups[group_of(parked)] += 1
            else:
                self._leave(
                    parked, delivery, "the channel was closed, or the reading ended, before its ack", in_doubt=True
                )
        if self.on_progress is not None:
            done = self.report.replayed + self.report.failed + self.report.in_doubt
            self.on_progress(self.routes.parking_queue, done, self.reader.ready)

    async def _publish(self, parked: ParkedMessage, delivery: Delivery, publish: Publish) -> bool:
        """True when confirmed. A refusal is waited for, as long as the queue took something lately."""
        wait = 0.05
        while True:
            self.step("publish.before")
            try:
                async with asyncio.timeout(CONFIRM_TIMEOUT):
                    await self.outbox.publish(publish)
            except PublishRefused as error:
                self.step("publish.refused")
                if self._may_wait_for_room(error):
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, 0.5)
                    continue
                self._leave(parked, delivery, str(error))
                self._halt(f"{self.routes.queue} takes no more messages: {error}", "replay again when it does")
                return False
            except Unroutable as error:
                self.step("publish.returned")
                self._leave(parked, delivery, str(error))
                self._halt(
                    f"{self.routes.retry_exchange} has no way to {self.routes.queue}: {error}",
                    f"amqpflow apply {shlex.quote(self.compiled.file)}",
                )
                return False
            except (PublishFailed, RecursionError) as error:
                self._leave(parked, delivery, str(error))
                return False
            except TimeoutError:
                why = f"no confirm within {CONFIRM_TIMEOUT:.0f} s; is the broker short of memory or disk?"
                self._leave(parked, delivery, why, in_doubt=True)
                self._halt(why)
                return False
            except PublishUncertain as error:
                self._leave(parked, delivery, str(error), in_doubt=True)
                self._halt(str(error))
                return False
            except (BrokerUnavailable, BrokerError, PermissionDenied) as error:
                self._leave(parked, delivery, str(error))
                self._halt(str(error))
                return False
            self.last_success = time.monotonic()
            self.step("publish.confirmed")
            return True

    def _may_wait_for_room(self, error: PublishRefused) -> bool:
        denied = isinstance(error.__cause__, PublishUncertain)  # a permission, not a full queue
        return (
            time.monotonic() - self.last_success < PATIENCE
            and not denied
            and not self.stop.is_set()
            and not self.halted.is_set()
        )

    def _leave(self, parked: ParkedMessage, delivery: Delivery, why: str, *, in_doubt: bool = False) -> None:
        self.reader.keep(delivery)
        if in_doubt:
            self.report.in_doubt += 1
        else:
            self.report.failed += 1
        if len(self.report.left_behind) < REPORTED:
            self.report.left_behind.append(
                LeftBehind(id=parked.id, message_id=parked.message_id, why=why, in_doubt=in_doubt)
            )

    def _halt(self, why: str, hint: str = "") -> None:
        if not self.halted.is_set():
            self.report.stopped, self.report.hint = why, hint
            self.halted.set()
            self.reader.finish()

    def step(self, name: str) -> None:
        if self.on_step is not None:
            self.on_step(name)

    # -- the end

    def finished(self, notes: list[str]) -> ReplayReport:
        report, reader = self.report, self.reader
        report.notes = notes
        report.remaining = reader.ready_after
        report.interrupted = self.stop.is_set() and (self.cut_short or reader.ended_early is not None)
        report.seconds = time.monotonic() - self.started
        if report.stopped is None and not report.interrupted:
            report.stopped = reader.ended_early
            if reader.ended_early:
                report.hint = "replay again to go on"
        if reader.unproven:
            self._halt(f"it is not known that RabbitMQ has taken every ack: {reader.unproven}")
            report.notes.append(
                f"up to {min(report.replayed, WINDOW)} of the replayed messages may still be parked; replaying them "
                "again makes copies with the same hop id"
            )
        return report


async def _publishing(broker: Broker, compiled: CompiledTopology) -> Connection:
    return await connect(broker.address, name=f"amqpflow replay {compiled.name}: publishing")
