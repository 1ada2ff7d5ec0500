"""The consumer that services import: handlers for work queues, with ack, retry and park."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, Unpack

from amqpflow.delivery.breaker import Breaker
from amqpflow.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    HandlerInvalid,
    NotApplied,
    TlsFailed,
    WrongUsage,
)
from amqpflow.model.event import ConnectionLost, ConnectionRecovered, Event
from amqpflow.rabbitmq.address import resolve_address
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.rabbitmq.url_source import UrlFunction

from . import process
from .alarms import Alarms
from .consuming import Consuming, connected_unless_set, set_within
from .event_log import EventLog
from .events import Events, Listener
from .flow import Budget
from .handler import HandlerFunction
from .handlers import HandlerOptions, Handlers
from .incoming import MAX_BODY_BYTES
from .lanes import KeyOf
from .loop_publisher import LoopPublisher
from .middleware import Middleware, check_middleware
from .report import Report
from .start_check import require_as_compiled, require_topology, warn_of_short_timeouts
from .suspects import Suspects
from .worker import Worker

if TYPE_CHECKING:
    from .topology import Topology

log = logging.getLogger("amqpflow.consumer")

_MANY = 5040  # every number of nodes up to 10 divides it, so each of them is as likely to be the first
_RETRIES = "retries"  #: the purpose of the connection that is published on

F = TypeVar("F", bound=HandlerFunction)
L = TypeVar("L", bound=Listener)


class Consumer:
    """
    Consumes the work queues of one topology.

    Each handler has a channel of its own; what is published for a retry or for parking goes over another. A lost
    connection is opened again, and nothing is settled on the dead one: its deliveries come again.

    Args:
        topology: a path, or a loaded `Topology`.
        url: where RabbitMQ is; AMQPFLOW_URL when absent. Several with commas between them are the nodes of a cluster:
            it starts with any, and takes the next when one is lost. A function that returns it, async or not, is
            called for each connection: for tokens that expire. AMQPFLOW_URL_FILE is read for each as well.
        management_url: when given (or AMQPFLOW_MANAGEMENT_URL, if `url` is absent), the start also compares queue
            arguments and preflights effective settings. It must be of the same broker.
        shutdown_timeout: seconds that started handlers may take to finish when the consumer stops.
        wait_for_topology: seconds to wait at the start for a broker that is not up, or a topology not applied yet.
        keep_stack: put a stack, at most 8 KiB, into the failure record.
        tracebacks: log failures with their exception (`exc_info`), so that the log shows tracebacks and Sentry has the
            exception. At level DEBUG they always have it.
        max_body_bytes: what a compressed body may grow to.
        concurrency: how many messages all handlers together handle at once. Each has one slot whenever it needs it, the
            others are shared by `weight`. Without it, each handler has its own `concurrency` and no more.
        middlewares: around every handler, outermost first, outside those of the handler.
        health_port: where `run` and `serve` answer the probes /livez and /readyz; none when absent.
        health_host: the interface for that; all of them when absent.

    Raises:
        TopologyInvalid: the file has errors. WrongUsage: the URL is none.
    """

    def __init__(
        self,
        topology: Topology | str | Path,
        url: str | UrlFunction | None = None,
        *,
        management_url: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        shutdown_timeout: float = 25.0,
        wait_for_topology: float = 0.0,
        keep_stack: bool = False,
        tracebacks: bool = False,
        max_body_bytes: int = MAX_BODY_BYTES,
        concurrency: int | None = None,
        middlewares: Sequence[Middleware] = (),
        health_port: int | None = None,
        health_host: str | None = None,
    ) -> None:
        if isinstance(topology, str | Path):
            from .topology import Topology

            topology = Topology.load(topology)
        self.topology = topology
        self.compiled = topology.compiled
        address = resolve_address(url, management_url, ca_file=ca_file, cert_file=cert_file, key_file=key_file)
        if address.unused is not None:
            log.warning(
                "%s is not used, because url is given: the start compares queue arguments and policies only with "
                "management_url",
                address.unused,
            )
        address = address.starting_with(random.randrange(_MANY))
        self.address = address.with_vhost(self.compiled.vhost) if self.compiled.vhost else address
        self.shutdown_timeout = shutdown_timeout
        self.wait_for_topology = wait_for_topology
        self.tracebacks = tracebacks
        self.health_port, self.health_host = health_port, health_host
        self.totals: Counter[str] = Counter()  #: received, acked, retried, parked, discarded, postponed, given-back
        #: by queue: why it is not being consumed right now; under "publishing": why retries and parking wait
        self.problems: dict[str, str] = {}
        self._events = Events()
        self._alarms = Alarms(self.problems, self._events)
        self._max_body_bytes = max_body_bytes
        self._handlers = Handlers(
            self.compiled, keep_stack=keep_stack, middlewares=tuple(map(check_middleware, middlewares))
        )
        if concurrency is not None and concurrency < 1:
            raise HandlerInvalid(f"concurrency={concurrency}, must be at least 1")
        self._concurrency = concurrency
        self._workers: list[Worker] = []
        self.suspects = Suspects()  #: what is handled now and was lost before
        self._loop: asyncio.AbstractEventLoop | None = None  # where it runs, from the beginning of its start
        self._begun: asyncio.Future[None] | None = None  # done when its start has ended, however
        self._task: asyncio.Task[None] | None = None
        self._consuming: Consuming | None = None  # what the task runs
        self._stopping = asyncio.Event()
        self._asked_to_stop, self._was_stopped = False, False
        self._publishing_lost_at = 0.0  # the loop's time in seconds; 0.0: it was not, or there is another
        self._event_log, self._logged = EventLog(), False
        self.started = False  #: it has begun to consume, at least once
        self._on_step: Callable[[str], None] | None = None  # for tests that kill the process at a step

    def handler(
        self,
        queue: str,
        *,
        concurrency: int = 10,
        prefetch: int | None = None,
        timeout: float | None = None,
        middlewares: Sequence[Middleware] = (),
        breaker: Breaker | None = None,
        rate: str | None = None,
        order_by: str | KeyOf | None = None,
        weight: float = 1,
        retry_policy: str | None = None,
    ) -> Callable[[F], F]:
        """
        Register the decorated function for a work queue.

        An async function runs in the event loop; any other runs in a thread, and a thread that runs into `timeout`
        cannot be stopped: it runs on and may overlap its retry. A fresh thread takes its place, up to as many as
        `concurrency` and at least 10; beyond that the places of `concurrency` become fewer, and with the last one the
        queue stands still and `live` is False.

        Args:
            queue: a queue of the topology.
            concurrency: how many messages are handled at once.
            prefetch: how many the broker hands out ahead; the same as `concurrency` when absent.
            timeout: seconds after which the handler has failed with TimeoutError.
            middlewares: around this handler, outermost first.
            breaker: when failures stop the consumer of this queue.
            rate: how often it is called at most, evenly: "100/s", "5000/m", "10/h". Of this process.
            order_by: a header's name, or a function of the message that returns its key: messages of one key are
                handled one after the other, as the queue has them. Those of other keys go on meanwhile. A message that
                is retried is overtaken. It holds across a reconnect: a handler that still runs keeps its key. Of this
                process: with several, make the queue a single active consumer's.
            weight: its share of the consumer's `concurrency`, beside that of other handlers.
            retry_policy: another policy of the topology's file than the queue's own; its delays must be among those
                that the queue has retry queues for.

        Raises:
            HandlerInvalid: an unknown queue, a second handler for it, or a function that cannot be a handler.
        """

        def register(function: F) -> F:
            self.add_handler(
                queue,
                function,
                concurrency=concurrency,
                prefetch=prefetch,
                timeout=timeout,
                middlewares=middlewares,
                breaker=breaker,
                rate=rate,
                order_by=order_by,
                weight=weight,
                retry_policy=retry_policy,
            )
            return function

        self._handlers.require_queue(queue)
        return register

    def add_handler(self, queue: str, function: HandlerFunction, **options: Unpack[HandlerOptions]) -> None:
        """`handler` without the decorator; takes the same options."""
        self._handlers.add(queue, function, options)

    def on(self, *events: str | type[Event]) -> Callable[[L], L]:
        """
        Subscribe the decorated function to events: `@consumer.on("message.parked")`.

        Args:
            events: names or classes; a class such as `MessageEvent` stands for all kinds below it, none for all events.

        Raises:
            HandlerInvalid: there is no such event, or the function cannot be called with one, or is async.
        """

        def register(listener: L) -> L:
            self.subscribe(listener, *events)
            return listener

        return register

    def subscribe(self, listener: Listener, *events: str | type[Event]) -> Callable[[], None]:
        """
        `on` without the decorator; returns a function that ends the subscription.

        A listener is called in the event loop, in the middle of the work: it must be quick. What it raises is logged,
        and changes nothing.
        """
        return self._events.subscribe(listener, *events)

    @property
    def healthy(self) -> bool:
        """Every handler's queue is being consumed."""
        return self._task is not None and not self._task.done() and not self.problems

    @property
    def live(self) -> bool:
        """
        False when a queue is not consumed until the process is restarted: the threads of its handler all run on after
        their timeout, and there are as many as there may be. `problems` names them.
        """
        return not any(worker.stands_still for worker in self._workers)

    def run(self) -> None:
        """
        Consume until SIGTERM or SIGINT; the first drains, a second one stops at once with exit code 130.

        In a thread other than the main one, as beside a web server, there are no signals: `stop_soon` stops it.

        Raises:
            WrongUsage: an event loop runs in this thread, where `serve` is to be awaited; or it runs already.
            NotApplied, BrokerUnavailable and the other errors of the start; later losses are reconnected.
        """
        process.run(self)

    async def serve(self) -> None:
        """
        `run` inside an event loop of your own; in the main thread it handles the signals while it runs. Several
        consumers that serve in one event loop are all stopped by a signal. Cancelling it stops at once.
        """
        await process.serve(self)

    @property
    def stopping(self) -> bool:
        """It was asked to stop."""
        return self._asked_to_stop

    def stop_soon(self) -> None:
        """
        Ask it to stop, from any thread, a signal handler or a message's handler: `wait` returns, `run` and `serve` end,
        and nothing new is taken. Asked for again while it stops, it changes nothing. What is asked for before a start
        ends that start.
        """
        self._asked_to_stop = True
        if self._loop is None:
            self._was_stopped = False  # it is for the next start
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and consumes nothing
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def wait(self) -> None:
        """Return when it was asked to stop, or has come to an end."""
        if self._task is not None:
            stopping = asyncio.create_task(self._stopping.wait())
            try:
                await asyncio.wait([stopping, self._task], return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()

    @property
    def _runs(self) -> bool:
        """It has been started, or is about to be, in an event loop that is still there, and was not stopped."""
        if self._loop is None or self._loop.is_closed():
            return False
        return self._task is None or not self._task.done()

    def require_not_running(self) -> None:
        """Raises WrongUsage: it runs already, here or in another event loop."""
        if self._runs:
            raise WrongUsage(
                "this Consumer runs already, and runs once at a time",
                hint="stop it first; to consume more at once raise `concurrency`, or make another Consumer",
            )

    async def start(self) -> None:
        """
        Connect, check that the topology is there, and begin to consume; returns when every queue is consumed, or when
        it was asked to stop.

        A consumer that was stopped can be started again, in another event loop too.

        Raises:
            WrongUsage: it runs already, here or in another event loop.
            HandlerInvalid: no handler is registered.
            NotApplied: the broker does not hold the topology; the hint is the command that mends it.
            Refused: the topology uses what this version does not consume.
            BrokerUnavailable and its kin: the broker cannot be reached.
        """
        self.require_not_running()
        if not self._handlers:
            raise HandlerInvalid("no handler is registered", hint="decorate one with @consumer.handler(QUEUE)")
        if self._concurrency is not None and self._concurrency < len(self._handlers):
            raise HandlerInvalid(
                f"concurrency={self._concurrency} is less than one slot for each of {len(self._handlers)} handlers"
            )
        loop = asyncio.get_running_loop()
        if self._was_stopped or self._loop is not None:  # and not: asked to stop before it had ever started
            self._asked_to_stop = self._was_stopped = False
        self._stopping, self._begun = asyncio.Event(), loop.create_future()
        self._task = self._consuming = None
        self._loop = loop
        if self._asked_to_stop:
            self._stopping.set()
        try:
            await self._start()
        finally:
            if self._task is None:
                self._loop, self._was_stopped = None, True
            self._begun.set_result(None)

    async def _start(self) -> None:
        """Leave no task when it was asked to stop meanwhile."""
        connection = await self._connect_to_topology()
        if connection is None:
            return
        if not self._logged:
            self._logged = True
            self._event_log.listen(self._events, tracebacks=self.tracebacks)
        self.suspects.reset()
        report = Report(self._events, self.totals)
        budget = Budget(self._concurrency) if self._concurrency is not None else None
        publisher = LoopPublisher(lambda: consuming.connect_publisher())
        self._workers = [
            Worker(
                handler,
                self._handlers.routes(handler.queue, self.compiled),
                self._max_body_bytes,
                self._events,
                report,
                self.problems,
                self.suspects,
                publisher=publisher,
                budget=budget,
                single_active=self._is_single_active(handler.queue),
            )
            for handler in self._handlers.values()
        ]
        try:
            for worker in self._workers:
                await worker.open(connection)
        except BaseException:
            await connection.close()
            raise
        consuming = self._consuming = Consuming(
            connection=connection,
            workers=self._workers,
            routes=lambda queue: self._handlers.routes(queue, self.compiled),
            connect=lambda purpose, beside: self._connect(purpose, beside),
            stopping=self._stopping,
            shutdown_timeout=lambda: self.shutdown_timeout,
            events=self._events,
            problems=self.problems,
            suspects=self.suspects,
            publisher=publisher,
            on_step=self._on_step,
        )
        self._task = asyncio.create_task(consuming.run(), name="amqpflow consumer")
        self._task.add_done_callback(self._end_logs)
        self.started = True

    def _is_single_active(self, queue: str) -> bool:
        declared = self.compiled.desired.queues.get(queue)
        return declared is not None and declared.arguments.get("x-single-active-consumer") is True

    async def stop(self) -> None:
        """
        Stop consuming, let started handlers finish within `shutdown_timeout`, requeue the rest, disconnect.

        Does nothing when it was not started, or was stopped. Whoever calls it meanwhile, from any event loop, waits
        for the same end. When the call is cancelled it stops all the same; `abandon` stops at once. A handler that
        wants it to stop calls `stop_soon`: `stop` would wait for that handler.

        Raises:
            WrongUsage: it was started in an event loop that does not run now, where it would have to stop.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            self._was_stopped = True
        elif loop is asyncio.get_running_loop():
            await self._stop()
        elif loop.is_running():
            elsewhere = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._stop(), loop))
            await asyncio.wait([elsewhere])
            if not elsewhere.cancelled():  # by the end of its loop
                elsewhere.result()
        else:
            raise WrongUsage(
                "this Consumer was started in an event loop that does not run now", hint="stop it in that event loop"
            )

    async def _stop(self) -> None:
        await self._end_starts()
        if (task := self._task) is not None:
            await asyncio.wait([task])
            if self._task is task:
                self._task = self._consuming = self._loop = None
                if not task.cancelled():
                    task.result()

    async def __aenter__(self) -> Consumer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def abandon(self) -> None:
        """Stop at once: cancel the start and the handlers that run. What was not settled comes again."""
        await self._end_starts()
        task, consuming, workers = self._task, self._consuming, self._workers  # of a start that follows they are others
        try:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        finally:
            if consuming is not None:
                await consuming.close()
            for worker in workers:
                await worker.abandon()
            if self._task is task:
                self._task = self._consuming = self._loop = None

    async def _end_starts(self) -> None:
        """Ask a start to stop, and another one that follows at once; return when none is under way."""
        while True:
            self._asked_to_stop = self._was_stopped = True
            self._stopping.set()
            if self._begun is None or self._begun.done():
                return
            await asyncio.wait([self._begun])

    def _end_logs(self, _: asyncio.Task[None]) -> None:
        """Log what was left out so far."""
        self._event_log.end()
        self._events.end()

    async def _connect_to_topology(self) -> Connection | None:
        """Return None when it was asked to stop meanwhile."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.wait_for_topology
        while True:
            try:
                return await connected_unless_set(self._stopping, self._connect_once_to_topology())
            except (AuthenticationFailed, TlsFailed):
                raise
            except (NotApplied, BrokerUnavailable) as error:
                if clock() >= deadline:
                    raise
                log.info("waiting for the topology: %s", error)
                if await set_within(self._stopping, 1):
                    raise

    async def _connect_once_to_topology(self) -> Connection:
        connection = await self._connect()
        try:
            await require_topology(connection, self.compiled, self._handlers)
            if self.address.management_url is not None:
                self.compiled = await require_as_compiled(self.address, self.compiled, self._handlers)
            warn_of_short_timeouts(self.compiled, {each.queue: each.timeout for each in self._handlers.values()})
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _connect(self, purpose: str = "consumer", beside: Connection | None = None) -> Connection:
        name = f"amqpflow {purpose} {self.compiled.name}"
        connection = await connect(self.address, name=name, beside=beside)
        address = connection.address.redacted
        connection.on_blocked(partial(self._alarms.told, connection, purpose))
        if purpose == _RETRIES:
            if self._publishing_lost_at:
                down_for, self._publishing_lost_at = self._clock() - self._publishing_lost_at, 0.0
                self._events.emit(ConnectionRecovered(address=address, purpose=purpose, down_for=down_for))
            connection.on_close(partial(self._publishing_lost, connection, address))
        return connection

    def _publishing_lost(self, connection: Connection, address: str) -> None:
        reason = connection.close_reason
        if reason is not None and not reason.by_us:
            self._publishing_lost_at = self._clock()
            self._events.emit(ConnectionLost(address=address, purpose=_RETRIES, reason=str(reason)))

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()
