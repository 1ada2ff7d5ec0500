"""Run several worker processes as one: start and watch them, restart those that die, stop them together."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from amqpflow.delivery.backoff import Backoff
from amqpflow.delivery.crashes import Suspect
from amqpflow.model.safe import safe
from amqpflow.model.units import format_duration, plural

from .health import Health, serve_health
from .heartbeat import VARIABLE, WORKER, WorkerStatus, decode
from .waiting import end, first_of, set_within

log = logging.getLogger("amqpflow.consumer")

_FIRST_WAIT = 0.2  #: seconds before a worker that died is started again
_BACKOFF = Backoff(1.0, 30.0)  #: from the second time on
_LONG_ENOUGH = 60.0  #: seconds after which a death is a new one
_HEAD_START = 5.0  #: seconds at most that the others wait for the first worker to consume
_REMEMBERED = 100  #: messages that were in hand when workers died
_SILENCE = 30.0  #: seconds without a report after which a worker's event loop counts as stuck


def next_wait(wait: float, lived: float, *, known: bool = False) -> float:
    """Return the seconds until the next start of a worker that died, when it waited `wait` and lived `lived` seconds.

    `known`: a message that was in hand at a death before was so at this one: it is parked before long, and until then
    the wait does not grow.
    """
    if lived >= _LONG_ENOUGH or wait == 0:
        return _FIRST_WAIT
    return wait if known else _BACKOFF.after(wait)


@dataclass(slots=True)
class _Worker:
    number: int
    process: asyncio.subprocess.Process | None = None
    status: WorkerStatus = field(default_factory=lambda: WorkerStatus(ready=False))
    heard_at: float = 0.0
    replaced: bool = False  #: it is stuck, and was asked to stop
    code: int = 0  #: with which it ended last
    handled: tuple[Suspect, ...] = ()  #: messages that were lost before, and that it handled when it ended last
    totals: Counter[str] = field(default_factory=Counter)  #: of its earlier lives


class Supervisor:
    """Runs a command as a number of worker processes.

    A worker that dies is started again: after 200ms, then 1s, 2s, 4s, up to 30s while it keeps dying, and not of one
    message that is known by then. A worker that cannot even start for the first time ends all of them, with its exit
    code: the others would not fare better. So the first one starts alone, and the cause is logged once.
    """

    def __init__(self, command: Sequence[str], workers: int, *, environ: Mapping[str, str] | None = None) -> None:
        self._command = tuple(command)
        self._environ = dict(os.environ if environ is None else environ)
        self._workers = [_Worker(number) for number in range(1, workers + 1)]
        self._stopping = asyncio.Event()
        self._restarts = 0
        self._ever_started = asyncio.Event()
        self._failed: int | None = None
        self._in_hand: dict[tuple[str, str], None] = {}  #: messages at the last deaths, the latest last

    async def run(self, *, health_port: int | None = None, health_host: str | None = None) -> int:
        """Run until SIGTERM or SIGINT, or until a worker cannot start; returns the exit code."""
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._stop)
        try:
            async with serve_health(health_port, health_host, self.health):
                await asyncio.gather(*map(self._keep, self._workers))
        finally:
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(each)
        log.info("%s", self.summary)
        if self._failed is not None:
            return self._failed
        # a worker that was asked to stop before it had begun dies of the signal
        codes = {worker.code for worker in self._workers} - {-signal.SIGTERM}
        return 130 if 130 in codes else int(not codes <= {0})

    def health(self) -> Health:
        """Return the health: ready when every worker is, live when every running worker has reported lately."""
        now = asyncio.get_running_loop().time()
        problems: dict[str, str] = {}
        live = True
        for worker in self._workers:
            name = f"worker {worker.number}"
            if worker.process is None:
                problems[name] = "it is not running"
            elif now - worker.heard_at > _SILENCE:
                live = False
                problems[name] = f"it has not reported for {now - worker.heard_at:.0f} s"
            else:
                problems |= {f"{name}: {subject}": why for subject, why in worker.status.problems.items()}
        ready = all(worker.process is not None and worker.status.ready for worker in self._workers)
        return Health(ready=ready, problems=problems, live=live)

    @property
    def summary(self) -> str:
        """Return the totals as `4 workers: received 10, acked 9, parked 1; restarts: 2`."""
        totals: Counter[str] = Counter()
        for worker in self._workers:
            totals += worker.totals
        counts = ", ".join(f"{name} {count}" for name, count in totals.items()) or "nothing received"
        restarts = f"; restarts: {self._restarts}" if self._restarts else ""
        return f"{len(self._workers)} workers: {counts}{restarts}"

    def _stop(self) -> None:
        log.info("stopping the workers" if not self._stopping.is_set() else "stopping the workers at once")
        self._stopping.set()
        for worker in self._workers:
            if worker.process is not None:
                _ask_to_stop(worker.process)

    async def _keep(self, worker: _Worker) -> None:
        wait, clock = 0.0, asyncio.get_running_loop().time
        if worker.number > 1:
            await first_of(self._ever_started.wait(), self._stopping.wait(), within=_HEAD_START)
        while not self._stopping.is_set():
            began = clock()
            worker.code = await self._live(worker)
            if self._stopping.is_set():
                return
            if not self._ever_started.is_set() and worker.code > 0:
                log.error("worker %d cannot start, exit code %d", worker.number, worker.code)
                self._failed = self._failed or worker.code
                self._stop()
                return
            wait = next_wait(wait, clock() - began, known=self._is_known(worker.handled))
            self._restarts += 1
            how = f"{_how(worker.code)}{safe(_while_handling(worker.handled))}"
            log.error(
                "worker %d ended (%s), starting it again in %s", worker.number, how, format_duration(round(wait * 1000))
            )
            if await set_within(self._stopping, wait):
                worker.code = 0  # nothing of it had to be stopped

    def _is_known(self, handled: Sequence[Suspect]) -> bool:
        """Return whether a message in hand at this death was in hand at an earlier one, of any worker."""
        known = False
        for each in handled:
            name = each.queue, each.message
            known |= name in self._in_hand
            self._in_hand.pop(name, None)
            self._in_hand[name] = None
        while len(self._in_hand) > _REMEMBERED:
            del self._in_hand[next(iter(self._in_hand))]
        return known

    async def _live(self, worker: _Worker) -> int:
        """Live a worker's life; return its exit code, negative for a signal, 1 when there is no room for it."""
        try:
            return await self._life(worker)
        except OSError as error:  # no memory, process or file descriptor is left: there may be some later
            log.error("worker %d cannot be started: %s", worker.number, error)
            return 1

    async def _life(self, worker: _Worker) -> int:
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**self._environ, VARIABLE: str(writing), WORKER: str(worker.number)},
                pass_fds=[writing],
                start_new_session=True,  # Ctrl-C reaches it through us, once
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        worker.process, worker.heard_at = process, asyncio.get_running_loop().time()
        worker.replaced = False
        if self._stopping.is_set():
            _ask_to_stop(process)
        listening = asyncio.create_task(self._listen(worker, reading))
        try:
            return await process.wait()
        finally:
            await asyncio.wait([listening], timeout=1)  # its last words; a child of its own may hold the pipe open
            await end([listening])
            worker.process = None
            worker.totals += Counter(worker.status.totals)
            worker.handled = worker.status.handled
            worker.status = WorkerStatus(ready=False)

    async def _listen(self, worker: _Worker, reading: int) -> None:
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader()
        with os.fdopen(reading, "rb", 0) as pipe:
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
            try:
                async for line in _lines(stream):
                    if (status := decode(line)) is not None:
                        worker.status, worker.heard_at = status, loop.time()
                        self._heard(worker, status)
            finally:
                transport.close()

    def _heard(self, worker: _Worker, status: WorkerStatus) -> None:
        if status.started:
            self._ever_started.set()
        if not status.live and not worker.replaced and worker.process is not None:
            worker.replaced = True
            why = "; ".join(f"{subject}: {why}" for subject, why in status.problems.items())
            log.error("worker %d is stuck and is restarted: %s", worker.number, safe(why))
            _ask_to_stop(worker.process)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue
        if not line:
            return
        yield line


def _ask_to_stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):  # it has ended already, and its last words are awaited
        process.send_signal(signal.SIGTERM)


def _while_handling(handled: Sequence[Suspect]) -> str:
    """Return what a worker was doing, as far as it may be the cause: it reports only messages with such deliveries."""
    if not handled:
        return ""
    first = handled[0]
    times = plural(first.lost, "time")
    named = f" while it handled message {first.message} of {first.queue}, delivered {times} before"
    return f"{named} without an ack, {'alone' if first.alone else 'with others'}"


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
