"""The consumer that services import: handlers for work queues, with ack, retry and park.

In: a topology, handlers, and when to start and stop. Out: `Consuming`, which runs them in a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, Unpack

from amqpflow.delivery.breaker import Breaker
from amqpflow.errors import (
    AuthenticationError,
    BrokerUnavailableError,
    InvalidHandlerError,
    NotAppliedError,
    TlsError,
    UsageError,
)
from amqpflow.model.event import Event
from amqpflow.rabbitmq.address import resolve_address
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.rabbitmq.url_source import UrlFunction
from amqpflow.services.handling.handler import HandlerFunction
from amqpflow.services.handling.message import MAX_BODY_BYTES
from amqpflow.services.handling.middleware import Middleware, check_middleware
from amqpflow.services.handling.ordering import KeyOf
from amqpflow.services.handling.registry import HandlerOptions, Handlers
from amqpflow.services.handling.throttling import ConcurrencyBudget
from amqpflow.services.process import serving as process
from amqpflow.services.process.waiting import first_of, set_within
from amqpflow.services.provisioning.verification import require_as_compiled, require_topology, warn_of_short_timeouts
from amqpflow.services.publishing.loop_publisher import LoopPublisher

from .connection_events import ConnectionEvents
from .connections import Consuming, connected_unless_set
from .event_log import EventLog
from .events import Events, Listener
from .health import ConsumerHealth
from .runner import HandlerRunner
from .suspects import Suspects
from .telemetry import ConsumerTelemetry, Totals

if TYPE_CHECKING:
    from amqpflow.services.loading.topology import Topology

log = logging.getLogger("amqpflow.consumer")

_MANY = 5040  # every number of nodes up to 10 divides it, so each of them is as likely to be the first

F = TypeVar("F", bound=HandlerFunction)
L = TypeVar("L", bound=Listener)


class Consumer:
    """Consumes the work queues of one topology.

    Each handler has a channel of its own; retries and parking are published over another connection. A lost connection
    is opened again, and nothing is settled on the dead one: its deliveries come again.

    Args:
        topology: a path, or a loaded `Topology`.
        url: of RabbitMQ; AMQPFLOW_URL when absent. Several URLs, with commas between them, name the nodes of a cluster:
            the consumer starts with any, and takes the next one when a node is lost. A function that returns the URL,
            async or not, is called for each connection: for tokens that expire. So is AMQPFLOW_URL_FILE read.
        management_url: when given (or AMQPFLOW_MANAGEMENT_URL, if `url` is absent), the start also compares queue
            arguments and preflights effective settings. It must be of the same broker.
        shutdown_timeout: seconds that started handlers may take to finish when the consumer stops.
        wait_for_topology: seconds to wait at the start for a broker that is down, or a topology that is not applied.
        keep_stack: put a stack, at most 8 KiB, into the failure record.
        tracebacks: log failures with their exception (`exc_info`), so that the log shows tracebacks and Sentry has the
            exception. At level DEBUG they always have it.
        max_body_bytes: limit of a decompressed body.
        concurrency: limit of messages that all handlers together handle at once. Each handler has one slot whenever it
            needs it; the others are shared by `weight`. Without it, only each handler's own `concurrency` is a limit.
        middlewares: around every handler, outermost first, outside those of the handler.
        health_port: the port on which `run` and `serve` answer the probes /livez and /readyz; no probes when absent.
        health_host: the interface of the probes; all interfaces when absent.

    Raises:
        InvalidTopologyError: the file has errors. UsageError: the URL is not a URL.
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
            from amqpflow.services.loading.topology import Topology

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
        self.totals: Counter[str] = Totals()  #: received, acked, retried, parked, discarded, postponed, requeued
        self._health = ConsumerHealth()
        self._events = Events()
        self._connection_events = ConnectionEvents(self._health, self._events)
        self._max_body_bytes = max_body_bytes
        self._handlers = Handlers(
            self.compiled, keep_stack=keep_stack, middlewares=tuple(map(check_middleware, middlewares))
        )
        if concurrency is not None and concurrency < 1:
            raise InvalidHandlerError(f"concurrency={concurrency}, must be at least 1")
        self._concurrency = concurrency
        self._runners: list[HandlerRunner] = []
        self.suspects = Suspects()  #: messages that are handled now and were lost before
        self._loop: asyncio.AbstractEventLoop | None = None  # where it runs, from the beginning of its start
        self._begun: asyncio.Future[None] | None = None  # done when its start has ended, however
        self._task: asyncio.Task[None] | None = None
        self._consuming: Consuming | None = None  # what the task runs
        self._stopping = asyncio.Event()
        self._asked_to_stop, self._was_stopped = False, False
        self._event_log, self._logged = EventLog(), False
        self.started = False  #: it has consumed, at least once
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
        """Register the decorated function for a work queue.

        An async function runs in the event loop; any other runs in a thread, and a thread that runs into `timeout`
        cannot be stopped: it still runs and may overlap its retry. A fresh thread replaces it, up to as many as
        `concurrency` and at least 10. Beyond that the handler loses slots of `concurrency`; with the last one the queue
        is stuck and `live` is False.

        Args:
            queue: a queue of the topology.
            concurrency: how many messages are handled at once.
            prefetch: how many messages the broker delivers ahead; the same as `concurrency` when absent.
            timeout: seconds after which the handler has failed with TimeoutError.
            middlewares: around this handler, outermost first.
            breaker: when failures stop the consumer of this queue.
            rate: limit of calls in this process, evenly spread: "100/s", "5000/m", "10/h".
            order_by: a header's name, or a function of the message that returns its key: messages of one key are
                handled one after the other, in the order of the queue. Other keys are handled meanwhile. A retried
                message is overtaken. The order holds across a reconnect: a handler that still runs keeps its key. It
                holds in this process: with several, give the queue a single active consumer.
            weight: its share of the consumer's `concurrency`, beside that of other handlers.
            retry_policy: another policy of the topology's file than the queue's own; its delays must be among those
                that the queue has retry queues for.

        Raises:
            InvalidHandlerError: an unknown queue, a second handler for it, or a function that cannot be a handler.
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
        """Register a handler without the decorator, with the options of `handler`."""
        self._handlers.add(queue, function, options)

    def on(self, *events: str | type[Event]) -> Callable[[L], L]:
        """Subscribe the decorated function to events: `@consumer.on("message.parked")`.

        Args:
            events: names or classes; a class such as `MessageEvent` stands for all kinds below it, none for all events.

        Raises:
            InvalidHandlerError: there is no such event, or the function cannot be called with one, or is async.
        """

        def register(listener: L) -> L:
            self._events.subscribe(listener, *events)
            return listener

        return register

    def subscribe(self, listener: Listener, *events: str | type[Event]) -> Callable[[], None]:
        """Subscribe without the decorator `on`; return a function that ends the subscription.

        A listener is called in the event loop, in the middle of the work: it must be quick. An exception of it is
        logged, and changes nothing.
        """
        return self._events.subscribe(listener, *events)

    @property
    def problems(self) -> Mapping[str, str]:
        """Return why a queue is not consumed now, by queue; under "publishing", why retries and parking wait."""
        return self._health.problems

    @property
    def healthy(self) -> bool:
        """Return whether every handler's queue is being consumed."""
        return self._task is not None and not self._task.done() and not self.problems

    @property
    def live(self) -> bool:
        """Return False when only a restart helps: all threads of a handler still run after their timeout, and there are
        as many as there may be, so that its queue is not consumed. `problems` names them.
        """
        return not any(runner.stands_still for runner in self._runners)

    def run(self) -> None:
        """Consume until SIGTERM or SIGINT; the first drains, a second one stops at once with exit code 130.

        In a thread other than the main one, as beside a web server, there are no signals: `stop_soon` stops it.

        Raises:
            UsageError: an event loop runs in this thread, where `serve` must be awaited; or it runs already.
            NotAppliedError, BrokerUnavailableError and the other errors of the start; later losses are reconnected.
        """
        process.run(self)

    async def serve(self) -> None:
        """Run inside an event loop of your own; in the main thread, handle the signals meanwhile. A signal stops all
        consumers that serve in one event loop. Cancelling the call stops at once.
        """
        await process.serve(self)

    @property
    def stopping(self) -> bool:
        """Return whether the consumer was asked to stop."""
        return self._asked_to_stop

    def stop_soon(self) -> None:
        """Ask the consumer to stop, from any thread, a signal handler or a message's handler: `wait` returns, `run` and
        `serve` end, and nothing new is taken. Calling it again while the consumer stops changes nothing. Called before
        a start, it ends that start.
        """
        self._asked_to_stop = True
        if self._loop is None:
            self._was_stopped = False  # it is for the next start
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and consumes nothing
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def wait(self) -> None:
        """Return when the consumer was asked to stop, or has ended."""
        if self._task is not None:
            await first_of(self._stopping.wait(), asyncio.wait([self._task]))

    def require_not_running(self) -> None:
        """Raise UsageError if the consumer runs already, here or in another event loop."""
        exists = self._loop is not None and not self._loop.is_closed()
        if exists and (self._task is None or not self._task.done()):
            raise UsageError(
                "this Consumer runs already, and runs once at a time",
                hint="stop it first; to consume more at once raise `concurrency`, or make another Consumer",
            )

    async def start(self) -> None:
        """Connect, check that the topology is there, and begin to consume; returns when every queue is consumed, or
        when it was asked to stop.

        A consumer that was stopped can be started again, in another event loop too.

        Raises:
            UsageError: it runs already, here or in another event loop.
            InvalidHandlerError: no handler is registered.
            NotAppliedError: the broker does not hold the topology; the hint is the command that fixes it.
            RefusedError: the topology uses what this version does not consume.
            BrokerUnavailableError, or another error of the connection: the broker cannot be reached.
        """
        self.require_not_running()
        if not self._handlers:
            raise InvalidHandlerError("no handler is registered", hint="decorate one with @consumer.handler(QUEUE)")
        if self._concurrency is not None and self._concurrency < len(self._handlers):
            raise InvalidHandlerError(
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
        """Start the task that consumes, unless the consumer was asked to stop meanwhile."""
        connection = await self._connect_to_topology()
        if connection is None:
            return
        if not self._logged:
            self._logged = True
            self._event_log.listen(self._events, tracebacks=self.tracebacks)
        self.suspects.reset()
        telemetry = ConsumerTelemetry(self._events, self.totals)
        budget = ConcurrencyBudget(self._concurrency) if self._concurrency is not None else None
        publisher = LoopPublisher(lambda: consuming.connect_publisher())
        self._runners = [
            HandlerRunner(
                handler,
                self._handlers.routes(handler.queue, self.compiled),
                self._max_body_bytes,
                self._events,
                telemetry,
                self._health,
                self.suspects,
                publisher=publisher,
                budget=budget,
                single_active=self._is_single_active(handler.queue),
            )
            for handler in self._handlers.values()
        ]
        try:
            for runner in self._runners:
                await runner.open(connection)
        except BaseException:
            await connection.close()
            raise
        consuming = self._consuming = Consuming(
            connection=connection,
            runners=self._runners,
            routes=lambda queue: self._handlers.routes(queue, self.compiled),
            connect=lambda purpose, beside: self._connect(purpose, beside),
            stopping=self._stopping,
            shutdown_timeout=lambda: self.shutdown_timeout,
            events=self._events,
            health=self._health,
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
        """Stop consuming, let started handlers finish within `shutdown_timeout`, requeue the rest, disconnect.

        Does nothing when the consumer was not started, or was stopped. Other calls meanwhile, from any event loop, wait
        for the same end. If the call is cancelled the consumer stops nevertheless; `abandon` stops at once. A handler
        calls `stop_soon` instead: `stop` would wait for that handler.

        Raises:
            UsageError: it was started in an event loop that does not run now, where it would have to stop.
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
            raise UsageError(
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
        task, consuming, runners = self._task, self._consuming, self._runners  # of a start that follows they are others
        try:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        finally:
            if consuming is not None:
                await consuming.close()
            for runner in runners:
                await runner.abandon()
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
        self._event_log.end()
        self._events.end()

    async def _connect_to_topology(self) -> Connection | None:
        """Return None when it was asked to stop meanwhile."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.wait_for_topology
        while True:
            try:
                return await connected_unless_set(self._stopping, self._connect_once_to_topology())
            except (AuthenticationError, TlsError):
                raise
            except (NotAppliedError, BrokerUnavailableError) as error:
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
        self._connection_events.listen(connection, purpose)
        return connection
