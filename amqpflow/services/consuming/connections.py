"""Run the handlers of a started consumer on one connection after the other.

In: a way to connect, and the handlers' runners. Out: handled deliveries, until the consumer stops. A lost connection is
opened again; nothing is settled on the dead one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from amqpflow.delivery.backoff import Backoff, jittered
from amqpflow.delivery.hot_loop import Rejections
from amqpflow.errors import AddressChangedError, AmqpflowError
from amqpflow.model.closing import CloseReason
from amqpflow.model.event import ConnectionLost, ConnectionRecovered
from amqpflow.model.routes import QueueRoutes
from amqpflow.model.safe import safe
from amqpflow.model.units import roughly
from amqpflow.rabbitmq.connection import CLOSE_TIMEOUT, Connection
from amqpflow.services.process.waiting import end, first_of, set_within
from amqpflow.services.publishing.loop_publisher import CLOSE_TIMEOUT as CONFIRM_TIMEOUT
from amqpflow.services.publishing.loop_publisher import LoopPublisher
from amqpflow.services.publishing.outbox import Outbox
from amqpflow.version import __version__

from .connection_events import RETRIES
from .events import Events
from .health import Cause, ConsumerHealth
from .loop_monitor import LoopMonitor
from .runner import HandlerRunner
from .settler import Settler
from .suspects import Suspects

log = logging.getLogger("amqpflow.consumer")

_BACKOFF = Backoff(0.5)  #: between attempts to connect
_LONG_ENOUGH = 10.0  #: seconds after which a connection that was lost is opened again almost at once
_CLOSE_TIMEOUT = 1.0  #: seconds for the other connection to close, when this one was lost


@dataclass(kw_only=True)
class Consuming:
    """Consumes until it is asked to stop, and connects again whenever the connection is lost."""

    connection: Connection  #: the latest, open or not
    runners: Sequence[HandlerRunner]
    routes: Callable[[str], QueueRoutes]  #: for a queue: where its failed messages go
    #: for a purpose: consumer, retries or publisher; beside a connection it leads to where that does, or
    #: AddressChangedError
    connect: Callable[[str, Connection | None], Coroutine[Any, Any, Connection]]
    stopping: asyncio.Event
    shutdown_timeout: Callable[[], float]  #: seconds
    events: Events
    health: ConsumerHealth
    suspects: Suspects
    publisher: LoopPublisher  #: of what handlers publish; it connects with `connect_publisher`
    on_step: Callable[[str], None] | None = None
    rejections: dict[str, Rejections] = field(default_factory=dict)  #: of native queues; they outlive connections
    _monitor: LoopMonitor = field(default_factory=LoopMonitor)
    _publishing: Connection | None = None  #: that of `publisher`, open or not

    async def run(self) -> None:
        """Consume until `stopping` is set, then let started handlers finish."""
        try:
            with self._monitor:
                await self._run()
        finally:
            await self.close()

    async def close(self) -> None:
        """Leave nothing open: `run` may be cancelled before it consumes, and before it has begun."""
        try:
            await self.publisher.close(0)
        finally:
            if not self.connection.is_closed:
                await self.connection.close()

    async def _run(self) -> None:
        wait, clock = _BACKOFF.first, asyncio.get_running_loop().time
        lost_at = 0.0
        connection: Connection | None = self.connection
        while not self.stopping.is_set():
            began = clock()
            try:
                connection = connection or await connected_unless_set(self.stopping, self.connect("consumer", None))
            except AmqpflowError as error:
                pause = jittered(wait, random.random(), took=clock() - began)
                log.error("cannot reconnect, next try in %.1f s: %s", pause, safe(str(error)))
                self._problem(f"cannot reconnect: {error}")
            else:
                if connection is None:
                    break
                connection.explain(partial(self._explained, connection.heartbeat))
                await self._take_the_publisher_along(connection)
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
                silent = lost.close_reason is not None and lost.close_reason.silent
                if silent and (message := self._monitor.message_that_outlasted(lost.heartbeat)):
                    self.suspects.blame(message)
                self.events.emit(ConnectionLost(address=address, purpose="consumer", reason=reason))
                self._problem(f"the connection was lost: {reason}")
                if clock() - began > _LONG_ENOUGH:
                    wait = _BACKOFF.first
                pause = jittered(wait, random.random())
            if await set_within(self.stopping, pause):
                break
            wait = _BACKOFF.after(wait)
        await self._stop_runners()  # their deliveries are requeued before the connection's end would count them
        closing = [self._close_publisher()] if connection is None else [self._close_publisher(), connection.close()]
        await asyncio.gather(*closing)

    def _problem(self, why: str) -> None:
        for runner in self.runners:
            self.health.set(runner.handler.queue, Cause.CONNECTION, why)

    def _explained(self, heartbeat: int, reason: CloseReason) -> CloseReason:
        """Name what kept this process from sending heartbeats, if that is why a connection ended silently."""
        why = self._monitor.why_heartbeats_were_missed(heartbeat) if reason.silent else ""
        if not why:
            return reason
        return replace(reason, text=f"missed heartbeats: {why} (heartbeat {roughly(heartbeat)}); {reason}")

    async def _consume_on(self, connection: Connection) -> None:
        outbox = Outbox(partial(self._connect_beside, RETRIES, connection))
        loops = [
            asyncio.create_task(
                runner.run(connection, self._settler(runner, outbox, connection.frame_max), runner.session)
            )
            for runner in self.runners
        ]
        failed, drained = "", False
        try:
            one_ends = asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            await first_of(self.stopping.wait(), connection.closed.wait(), one_ends)
            if self.stopping.is_set():
                await self._stop_runners()
                drained = True
            for task in loops:
                if task.done() and not task.cancelled() and (bug := task.exception()) is not None:
                    failed = f"a handler's loop failed: {bug!r}"
                    log.error("a bug in amqpflow; the consumer reconnects: %s", safe(repr(bug)), exc_info=bug)
                    await asyncio.sleep(jittered(_BACKOFF.first, random.random()))
        finally:
            try:
                await end(loops)
            finally:
                for runner in self.runners:
                    runner.session = None
                within = _CLOSE_TIMEOUT if connection.is_closed else CLOSE_TIMEOUT
                closing = [outbox.close(within=within), connection.close(failed)]
                if drained:
                    closing.append(self._close_publisher())
                await asyncio.gather(*closing)

    async def _connect_beside(self, purpose: str, consuming: Connection) -> Connection:
        try:
            connection = await self.connect(purpose, consuming)
            connection.explain(partial(self._explained, connection.heartbeat))
            return connection
        except AddressChangedError as error:
            # a copy that is published there would leave its broker: unsettled messages come again, here or there
            if not consuming.is_closed:
                log.warning("%s: the consumer moves there", error)
                await consuming.close(f"{error}: the consumer moves there")
            raise

    async def connect_publisher(self) -> Connection:
        """Connect for what handlers publish, to the broker that is consumed from.

        Raises:
            AddressChangedError: the URL names another broker by now, and the consumer moves there; nothing was sent.
            BrokerUnavailableError, or another error of the connection.
        """
        beside = self.connection
        connection = await self._connect_beside("publisher", beside)
        if (moved := self.connection) is not beside and not _same_broker(moved, connection):
            await connection.close()
            raise AddressChangedError(f"the consumer has moved to {moved.address} meanwhile")
        self._publishing = connection
        return connection

    async def _take_the_publisher_along(self, connection: Connection) -> None:
        """Publish what handlers publish to the broker that is consumed from."""
        self.connection = connection
        publishing = self._publishing
        if publishing is not None and not publishing.is_closed and not _same_broker(connection, publishing):
            await publishing.close(f"the consumer has moved to {connection.address}", within=_CLOSE_TIMEOUT)

    async def _close_publisher(self) -> None:
        """Close it after the confirms of threads that still run, unless the broker blocks publishes."""
        await self.publisher.close(CONFIRM_TIMEOUT if self.publisher.outbox.blocked is None else 0)

    async def _stop_runners(self) -> None:
        until = asyncio.get_running_loop().time() + self.shutdown_timeout()
        await asyncio.gather(*(runner.stop(until) for runner in self.runners))

    def _settler(self, runner: HandlerRunner, outbox: Outbox, frame_max: int) -> Settler:
        routes = self.routes(runner.handler.queue)
        if routes.native is not None:
            self.rejections.setdefault(routes.queue, Rejections(routes.native))
        return Settler(
            routes=routes,
            outbox=outbox,
            frame_max=frame_max,
            host=socket.gethostname(),
            version=__version__,
            events=self.events,
            health=self.health,
            rejections=self.rejections.get(routes.queue),
            on_step=self.on_step,
        )


def _same_broker(consuming: Connection, other: Connection) -> bool:
    return consuming.cluster.leads_to(other.address)


async def connected_unless_set(event: asyncio.Event, connect: Coroutine[Any, Any, Connection]) -> Connection | None:
    """Connect; return None if the event is set before. Leaves nothing open when it is cancelled."""
    connecting, waiting = asyncio.create_task(connect), asyncio.create_task(event.wait())
    try:
        await asyncio.wait([connecting, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            await end([connecting])
    except asyncio.CancelledError:
        await end([connecting])
        if not connecting.cancelled() and connecting.exception() is None:
            await connecting.result().close()
        raise
    finally:
        waiting.cancel()  # and not awaited: a call that is cancelled there would leave the connection open
    return None if connecting.cancelled() else connecting.result()
