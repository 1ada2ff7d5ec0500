"""The work of a consumer that has started: its workers, on one connection after the other."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from amqpflow import __version__
from amqpflow.delivery.hot_loop import Rejections
from amqpflow.delivery.pauses import LONGEST_PAUSE, spread, still_to_wait
from amqpflow.errors import AddressChanged, AmqpflowError
from amqpflow.model.closing import CloseReason
from amqpflow.model.duration import roughly
from amqpflow.model.event import ConnectionLost, ConnectionRecovered
from amqpflow.model.routes import QueueRoutes
from amqpflow.model.safe import safe
from amqpflow.rabbitmq.connection import CLOSE_TIMEOUT, Connection

from .events import Events
from .loop_monitor import LoopMonitor
from .outbox import Outbox
from .settler import Settler
from .worker import Worker

log = logging.getLogger("amqpflow.consumer")

_FIRST_WAIT, _LONGEST_WAIT = 0.5, LONGEST_PAUSE  #: seconds between attempts to connect
_LONG_ENOUGH = 10.0  #: seconds after which a connection that was lost is opened again almost at once
_CLOSE_TIMEOUT = 1.0  #: seconds for the other connection to close, when this one was lost


@dataclass(kw_only=True)
class Consuming:
    """Consumes until it is told to stop, and connects anew whenever the connection is lost."""

    workers: Sequence[Worker]
    routes: Callable[[str], QueueRoutes]  #: where the failed messages of a queue go
    #: for a purpose, consumer or retries; the second is to lead to where the first one does, or AddressChanged
    connect: Callable[[str, Connection | None], Awaitable[Connection]]
    stopping: asyncio.Event
    shutdown_timeout: Callable[[], float]  #: seconds
    events: Events
    problems: dict[str, str]
    on_step: Callable[[str], None] | None = None
    rejections: dict[str, Rejections] = field(default_factory=dict)  #: of native queues; they outlive connections
    _monitor: LoopMonitor = field(default_factory=LoopMonitor)

    async def run(self, connection: Connection | None) -> None:
        """Until `stopping` is set; then let started handlers finish. `connection`: the first one, if it is open."""
        with self._monitor:
            await self._run(connection)

    async def _run(self, connection: Connection | None) -> None:
        wait, clock = _FIRST_WAIT, asyncio.get_running_loop().time
        lost_at = 0.0
        while not self.stopping.is_set():
            began = clock()
            try:
                connection = connection or await self.connect("consumer", None)
            except AmqpflowError as error:
                pause = still_to_wait(wait, random.random(), clock() - began)
                log.error("cannot reconnect, next try in %.1f s: %s", pause, safe(str(error)))
                self._problem(f"cannot reconnect: {error}")
            else:
                connection.explain(partial(self._explained, connection.heartbeat))
                address = connection.address.redacted
                if lost_at:
                    down_for = clock() - lost_at
                    self.events.emit(ConnectionRecovered(address=address, purpose="consumer", down_for=down_for))
                await self._consume_on(connection)
                lost, connection = connection, None
                if self.stopping.is_set():
                    break
                lost_at = clock()
                reason = str(lost.close_reason)
                self.events.emit(ConnectionLost(address=address, purpose="consumer", reason=reason))
                self._problem(f"the connection was lost: {reason}")
                if clock() - began > _LONG_ENOUGH:
                    wait = _FIRST_WAIT
                pause = spread(wait, random.random())
            if await set_within(self.stopping, pause):
                break
            wait = min(wait * 2, _LONGEST_WAIT)
        await self._stop_workers()  # what they were handed is given back before the connection counts it
        if connection is not None:
            await connection.close()

    def _problem(self, why: str) -> None:
        self.problems.update({worker.handler.queue: why for worker in self.workers})

    def _explained(self, heartbeat: int, reason: CloseReason) -> CloseReason:
        """The reason of a silent end, when the broker cannot have had heartbeats from this process."""
        why = self._monitor.why_heartbeats_were_missed(heartbeat) if reason.silent else ""
        if not why:
            return reason
        return replace(reason, text=f"missed heartbeats: {why} (heartbeat {roughly(heartbeat)}); {reason}")

    async def _consume_on(self, connection: Connection) -> None:
        outbox = Outbox(partial(self._connect_beside, connection))
        loops = [
            asyncio.create_task(
                worker.run(connection, self._settler(worker, outbox, connection.frame_max), worker.session)
            )
            for worker in self.workers
        ]
        stopping = asyncio.create_task(self.stopping.wait())
        lost = asyncio.create_task(connection.closed.wait())
        failed = ""
        try:
            await asyncio.wait([stopping, lost, *loops], return_when=asyncio.FIRST_COMPLETED)
            if self.stopping.is_set():
                await self._stop_workers()
            for task in loops:
                if task.done() and not task.cancelled() and (bug := task.exception()) is not None:
                    failed = f"a worker failed: {bug!r}"
                    log.error("a bug of amqpflow, the consumer connects again: %s", safe(repr(bug)), exc_info=bug)
                    await asyncio.sleep(spread(_FIRST_WAIT, random.random()))
        finally:
            ending: list[asyncio.Task[Any]] = [*loops, stopping, lost]
            for each in ending:
                each.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            for worker in self.workers:
                worker.session = None
            within = _CLOSE_TIMEOUT if connection.is_closed else CLOSE_TIMEOUT
            await asyncio.gather(outbox.close(within=within), connection.close(failed))

    async def _connect_beside(self, consuming: Connection) -> Connection:
        try:
            connection = await self.connect("retries", consuming)
            connection.explain(partial(self._explained, connection.heartbeat))
            return connection
        except AddressChanged as error:
            # a retry published there would leave its broker: what was not settled comes again, here or there
            log.warning("%s: the consumer moves there", error)
            await consuming.close(f"{error}: the consumer moves there")
            raise

    async def _stop_workers(self) -> None:
        until = asyncio.get_running_loop().time() + self.shutdown_timeout()
        await asyncio.gather(*(worker.stop(until) for worker in self.workers))

    def _settler(self, worker: Worker, outbox: Outbox, frame_max: int) -> Settler:
        routes = self.routes(worker.handler.queue)
        if routes.native is not None:
            self.rejections.setdefault(routes.queue, Rejections(routes.native))
        return Settler(
            routes=routes,
            outbox=outbox,
            frame_max=frame_max,
            host=socket.gethostname(),
            version=__version__,
            events=self.events,
            problems=self.problems,
            rejections=self.rejections.get(routes.queue),
            on_step=self.on_step,
        )


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; False when it was not set within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
