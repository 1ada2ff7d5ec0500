"""A running soak: the load, the service, the faults, and what is seen of them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from amqpflow import Publisher, Topology, apply
from amqpflow.errors import AmqpflowError
from amqpflow.model import headers as h
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.connection import Connection, connect
from tests.shop import Shop
from tests.soak.faults import Fault
from tests.soak.kinds import CLASSIC, EXPECTED, NATIVE, QUORUM, THREADS, Sent, kind_of, topology, usual
from tests.soak.ledger import Ledger, Span
from tests.soak.network import Network
from tests.soak.node import USER, VHOST, SoakNode, in_thread

LOOK_EVERY = 0.5  #: seconds
AT_ONCE = 200  #: publishes without a confirm


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """One fault: when it began, and from when on good messages have to be handled again."""

    name: str
    fault: Fault
    began: float
    over: float


@dataclass(slots=True)
class Seen:
    """What was seen of the run, at the times of the samples."""

    offered: dict[str, list[tuple[float, bool]]] = field(default_factory=dict)  #: queue -> was there something to do?
    memory: list[tuple[float, dict[int, float]]] = field(default_factory=list)  #: MiB by process id
    depths: list[int] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)  #: of a service that should run
    not_live: float = 0.0  #: seconds


class Scene:
    """The parts of a soak. Made by `opened`."""

    def __init__(
        self, node: SoakNode, network: Network, directory: Path, *, seed: int, rate: float, workers: int
    ) -> None:
        self.node, self.network, self.directory = node, network, directory
        self.chance = random.Random(seed)
        self.rate = rate
        self.ledger, self.seen = Ledger(), Seen()
        self.sent: list[str] = []
        self.happened: list[Happened] = []
        native = node.version >= (4, 3)
        self.queues = [QUORUM, CLASSIC, THREADS, *([NATIVE] if native else [])]
        self.file = directory / "soak.yaml"
        self.file.write_text(topology(native=native))
        self._workers = workers
        self._ledger = directory / "ledger"
        self._ledger.touch()
        self._log = directory / "service.log"
        self._url = directory / "url"
        self._number = 0
        self._stopping = False
        self._fresh = Counter[str]()  # published since the last look, by queue
        self._publishing = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._raw: Connection | None = None
        self.compiled: CompiledTopology

    # -- the load

    def next_number(self) -> int:
        self._number += 1
        return self._number

    async def publish(self, message: Sent) -> None:
        """Publish until it is confirmed: a second time when it is not known, as a careful producer does."""
        async with self._publishing:
            while True:
                try:
                    await self.publisher.publish(
                        message.body,
                        routing_key=message.queue,
                        message_id=message.id,
                        content_encoding=message.content_encoding,
                    )
                except AmqpflowError:
                    await asyncio.sleep(0.5)
                else:
                    break
        self._sent(message)

    async def publish_raw(self, message: Sent) -> None:
        """The same with headers that a Publisher would take out."""
        while True:
            try:
                connection = self._raw
                if connection is None or connection.is_closed:
                    connection = self._raw = await connect(self.node.address, name="soak: forger")
                channel = await connection.open_channel()
                headers = dict(message.headers or {})
                properties = Properties(message_id=message.id, delivery_mode=2, headers=headers)
                await channel.publish(
                    Publish.of(exchange="", routing_key=message.queue, properties=properties, body=message.body)
                )
                await channel.close()
            except AmqpflowError:
                await asyncio.sleep(0.5)
            else:
                break
        self._sent(message)

    def _sent(self, message: Sent) -> None:
        self.sent.append(message.id)
        self._fresh[message.queue] += 1

    async def burst(self, count: int) -> None:
        """Publish so many more that succeed, as fast as it goes."""
        await asyncio.gather(
            *(
                self.publish(Sent(id=f"ok-{self.next_number()}", queue=self.queues[number % len(self.queues)]))
                for number in range(count)
            )
        )

    async def load(self, until: float) -> None:
        """Publish steadily until then; return once everything is confirmed."""
        due = 0.0
        while time.time() < until:
            await asyncio.sleep(0.05)
            due = min(due + 0.05 * self.rate, self.rate)
            while due >= 1 and len(self._tasks) < AT_ONCE:
                due -= 1
                message = usual(self.chance, self.next_number(), self.queues)
                task = asyncio.create_task(self.publish(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        while self._tasks:
            await asyncio.wait(self._tasks)

    # -- the service

    def write_url(self) -> None:
        """Put the present password where the service finds it."""
        new = self._url.with_suffix(".new")
        new.write_text(f"amqp://{USER}:{quote(self.node.password)}@127.0.0.1:{self.network.port}/{VHOST}\n")
        new.rename(self._url)

    def start_service(self) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AMQPFLOW_", "RABBITMQ_", "CLOUDAMQP_"))}
        env = {
            **clean,
            "AMQPFLOW_URL_FILE": str(self._url),
            "SOAK_LEDGER": str(self._ledger),
            "SOAK_TOPOLOGY": str(self.file),
            "SOAK_QUEUES": " ".join(self.queues),
        }
        command = [sys.executable, "-m", "amqpflow", "run", "service:consumer", "--app-dir", str(Path(__file__).parent)]
        if self._workers > 1:
            command += ["--workers", str(self._workers)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=env, cwd=self.directory, stdout=log, stderr=log)

    async def keep_service(self) -> None:
        """Start it again whenever it ends, as an init system does, and remember that it did."""
        while not self._stopping:
            process = self._process
            if process is not None and (code := process.poll()) is not None:
                self.seen.ends.append(f"{code}")
                self.start_service()
            await asyncio.sleep(0.2)

    async def stop_service(self) -> int:
        """Let it drain; return its exit code."""
        assert self._process is not None
        self._stopping = True
        self._process.send_signal(signal.SIGTERM)
        try:
            return int(await in_thread(self._process.wait, 60))
        except subprocess.TimeoutExpired:
            self._process.kill()
            return int(self._process.wait())

    def workers(self) -> list[int]:
        """Process ids that consume: the children, or the only process."""
        if self._process is None:
            return []
        return children(self._process.pid) if self._workers > 1 else [self._process.pid]

    # -- looking

    async def look(self) -> None:
        """Read the ledger and take samples, for ever."""
        position, rest, channel = 0, b"", None
        connection: Connection | None = None
        while True:
            with self._ledger.open("rb") as file:
                file.seek(position)
                data = rest + file.read()
                position = file.tell()
            *lines, rest = data.split(b"\n")
            for line in lines:
                self.ledger.read(line.decode())
            now = time.time()
            fresh, self._fresh = self._fresh, Counter()
            ready: dict[str, int] = {}
            try:
                if connection is None or connection.is_closed:
                    connection = await connect(self.node.address, name="soak: looking")
                    channel = await connection.open_channel()
                if channel is None or channel.is_closed:
                    channel = await connection.open_channel()
                ready = {each: (await channel.queue_counts(each)).ready for each in self.queues}
            except AmqpflowError:
                pass
            for queue in self.queues:
                self.seen.offered.setdefault(queue, []).append((now, fresh[queue] > 0 or ready.get(queue, 0) > 0))
            self.seen.depths.append(sum(ready.values()))
            if self._process is not None:
                mine = [self._process.pid, *children(self._process.pid)]
                self.seen.memory.append((now, {each: resident(each) for each in mine}))
            try:
                await asyncio.sleep(LOOK_EVERY)
            except asyncio.CancelledError:
                if connection is not None:
                    await connection.close()
                raise

    async def flows(self, since: float, patience: float) -> bool:
        """Wait until every queue, and a retry, was handled after that time."""
        deadline = time.time() + patience
        while time.time() < deadline:
            latest = [each[-1] if each else 0.0 for each in (*map(self.times_of, self.queues), self.ledger.retried)]
            if min(latest) > since:
                return True
            await asyncio.sleep(LOOK_EVERY)
        return False

    def times_of(self, queue: str) -> list[float]:
        return self.ledger.times.get(queue, [])

    async def drained(self, patience: float) -> bool:
        """Wait until everything is where it has to be."""
        deadline = time.time() + patience
        async with await connect(self.node.address, name="soak: draining") as connection:
            while time.time() < deadline:
                channel = await connection.open_channel()
                names = [each for each in self.compiled.desired.queues if each not in self.compiled.parking_queues]
                waiting = sum([(await channel.queue_counts(each)).ready for each in names])
                parked = sum([(await channel.queue_counts(each)).ready for each in self.compiled.parking_queues])
                await channel.close()
                missing = [e for e in self.sent if EXPECTED[kind_of(e)] is None and e not in self.ledger.done]
                expected = sum(EXPECTED[kind_of(each)] is not None for each in self.sent)
                if not missing and not waiting and parked >= expected:
                    return True
                await asyncio.sleep(1)
        return False

    # -- the faults

    async def break_things(self, faults: dict[str, Fault], until: float, say: bool) -> None:
        """One fault after the other, each kind once before any comes again."""
        order: list[str] = []
        while time.time() < until:
            if not order:
                order = list(faults)
                self.chance.shuffle(order)
            name = order.pop()
            fault, began = faults[name], time.time()
            try:
                async with fault.act(self, self.chance):
                    over = time.time() if fault.away else began
                    self.happened.append(Happened(name=name, fault=fault, began=began, over=over))
            except (OSError, AssertionError) as error:  # the management API of a node that has just come back
                print(f"{name}: {error}", flush=True)
                continue
            flows = await self.flows(time.time(), 60)
            if say:
                done = sum(map(len, self.ledger.times.values()))
                print(
                    f"{time.strftime('%H:%M:%S')} {name}: {time.time() - began:.1f} s{'' if flows else ', STANDS'}; "
                    f"{len(self.sent)} sent, {done} done, {self.seen.depths[-1:]} ready, {max_of(self.seen.memory)}",
                    flush=True,
                )
            await asyncio.sleep(self.chance.uniform(2, 6))

    def pauses(self, *, publishing: bool) -> list[Span]:
        """Return when nothing could be handled, or (publishing) nothing published."""
        spans = []
        for each, then in zip(self.happened, [*self.happened[1:], None], strict=True):
            if each.fault.away:
                spans.append((each.began, each.over))
            elif publishing and each.fault.holds_publishes:
                spans.append((each.began, min(each.began + 30, then.began if then else each.began + 30)))
        return spans

    # -- the end

    async def take_everything(self) -> tuple[dict[str, list[tuple[str, str]]], Counter[str]]:
        """Empty all queues: what is parked, and what is elsewhere."""
        parked: dict[str, list[tuple[str, str]]] = {}
        left: Counter[str] = Counter()
        async with await connect(self.node.address, name="soak: reckoning") as connection:
            shop = Shop(self.node.address, self.compiled, connection)
            for queue in self.compiled.desired.queues:
                for each in await shop.take(queue):
                    properties = each.header.properties
                    if queue in self.compiled.parking_queues:
                        headers = properties.headers or {}
                        found = (str(headers.get(h.REASON, "broker")), str(headers.get(h.HOP, "")))
                        parked.setdefault(str(properties.message_id), []).append(found)
                    else:
                        left[str(properties.message_id)] += 1
        return parked, left


@asynccontextmanager
async def opened(node: SoakNode, directory: Path, *, seed: int, rate: float, workers: int) -> AsyncIterator[Scene]:
    """A topology on the broker, a publisher, the service and who looks at it."""
    async with Network(node.address) as network:
        scene = Scene(node, network, directory, seed=seed, rate=rate, workers=workers)
        file = Topology.load(scene.file)
        report = await apply(file, node.address)
        assert report.complete, report
        scene.compiled = file.compiled
        scene.write_url()
        async with Publisher(node.address.url) as scene.publisher:
            scene.start_service()
            tasks = [asyncio.create_task(scene.look()), asyncio.create_task(scene.keep_service())]
            try:
                yield scene
            finally:
                for each in tasks:
                    each.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if scene._process is not None and scene._process.poll() is None:
                    scene._process.kill()
                    await in_thread(scene._process.wait)
                if scene._raw is not None:
                    await scene._raw.close()


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children (Linux)."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in text.split()]


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB; 0 when it has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return 0.0


def max_of(samples: list[tuple[float, dict[int, float]]]) -> str:
    """Say how large the largest process is."""
    return f"{max(samples[-1][1].values(), default=0):.0f} MiB" if samples else ""
