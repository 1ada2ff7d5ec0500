"""What the benchmarks of one workload share: contenders in turn, each in a process of its own; medians and ratios.

A benchmark is a script with one function for each contender. It is started again for each run, with the contender's
name, and that process prints what it measured: nothing that one contender imports or leaves behind falls on another.
The machine's noise does, so the contenders take turns in every round, and ratios are what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

BODY = 1024  #: bytes
PREFETCH = 200
BASELINE = "aio-pika"
URL = os.environ.get("AMQPFLOW_URL", "amqp://guest:guest@127.0.0.1:5672/")


class Measurement:
    """The clocks around what is measured: `start` when everything is set up, `stop` when the last message is done."""

    def __init__(self, count: int, queue_type: str, tiers: str) -> None:
        self.count = count
        self.queue_type = queue_type
        self.tiers = tiers
        self.done = asyncio.Event()
        self.result: dict[str, float] = {}

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self.result = {
            "rate": self.count / wall,
            "cpu_us": cpu / self.count * 1e6,
            "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


Contender = Callable[[Measurement], Awaitable[None]]


def body(number: int) -> bytes:
    head = json.dumps({"id": number, "kind": "order.created"})[:-1]
    return (head + ', "pad": "' + "x" * (BODY - len(head) - 12) + '"}').encode()


def topology(name: str, queue_type: str, tiers: str = "quorum") -> Any:
    """One work queue with one retry after a second."""
    import tempfile
    from pathlib import Path

    from amqpflow import Topology

    document = {
        "version": 1,
        "name": name,
        "retry_policies": {"once": {"delays": ["1s"]}},
        "queues": {f"{name}.work": {"type": queue_type, "retry": "once", "tiers": {"type": tiers}}},
    }
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "topology.yaml"
        file.write_text(json.dumps(document))  # JSON is YAML
        return Topology.load(file)


@asynccontextmanager
async def provisioned(compiled: Any, count: int = 0) -> Any:
    """Declare a topology, fill its work queue with `count` messages, and delete all of it afterwards."""
    from amqpflow import OutgoingMessage, Publisher
    from amqpflow.rabbitmq.address import resolve_address
    from amqpflow.rabbitmq.connection import connect

    (queue,) = compiled.routes
    desired = compiled.desired
    async with await connect(resolve_address(URL), name="amqpflow benchmark") as connection:
        channel = await connection.admin_channel()
        for each in desired.queues:
            await channel.queue_delete(each)
        for exchange in desired.exchanges.values():
            await channel.exchange_declare(exchange.name, exchange_type=exchange.type, durable=True)
        for each in desired.queues.values():
            await channel.queue_declare(each.name, durable=True, arguments=dict(each.arguments))
        for binding in desired.bindings:
            await channel.queue_bind(binding.destination, binding.source, binding.routing_key)
        async with Publisher(URL) as publisher:
            results = await publisher.publish_many(
                OutgoingMessage(
                    body=body(number),
                    routing_key=queue,
                    message_id=f"m-{number:08d}",
                    content_type="application/json",
                    headers={"tenant": "t1", "kind": 0},
                )
                for number in range(count)
            )
            assert not [each for each in results if not isinstance(each, str)]
        try:
            yield queue
        finally:
            for name in desired.queues:
                await channel.queue_delete(name)
            for name in desired.exchanges:
                await channel.exchange_delete(name)


def main(
    doc: str,
    contenders: Mapping[str, Contender],
    *,
    count: int,
    fill: bool,
    tiers: str = "quorum",
    required: Mapping[str, float] | None = None,
    baseline: str = BASELINE,
) -> None:
    """Run a benchmark, as the parent or as one contender's process.

    Args:
        doc: the script's docstring.
        contenders: by name; one of them is the baseline.
        count: messages in a run, unless `-n` says otherwise.
        tiers: type of the retry queues, unless `--tiers` says otherwise.
        fill: the work queue holds the messages when a run begins.
        required: the least ratio to the baseline, by contender; exit code 1 when one is missed.
        baseline: the contender that the others are compared with.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=count, help=f"messages in a run ({count})")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--type", choices=("classic", "quorum"), default="classic", help="of the work queue")
    parser.add_argument("--tiers", choices=("classic", "quorum"), default=tiers, help="of the retry queues")
    parser.add_argument("--only", choices=tuple(contenders), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        asyncio.run(_contend(contenders[options.only], options, fill))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for number in range(options.rounds):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            script = [sys.executable, sys.argv[0], "--only", name, "-n", str(options.n)]
            script += ["--type", options.type, "--tiers", options.tiers]
            output = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout
            runs[name].append(json.loads(output.splitlines()[-1]))
    rates = {name: statistics.median(each["rate"] for each in found) for name, found in runs.items()}
    print(
        f"{options.n} messages of {BODY} bytes, work queue {options.type}, retry queues {options.tiers}, "
        f"medians of {options.rounds} rounds\n"
    )
    print("| contender | ratio | messages/s | client CPU us/message | peak RSS MiB |")
    print("|---|---|---|---|---|")
    for name, found in sorted(runs.items(), key=lambda each: -rates[each[0]]):
        cpu, rss = (statistics.median(each[key] for each in found) for key in ("cpu_us", "rss_mib"))
        print(f"| {name} | {rates[name] / rates[baseline]:.2f} | {rates[name]:,.0f} | {cpu:.0f} | {rss:.0f} |")
    missed = [name for name, least in (required or {}).items() if rates[name] < least * rates[baseline]]
    for name in missed:
        print(f"\n{name} is slower than {required[name]} times {baseline}")  # type: ignore[index]
    sys.exit(1 if missed else 0)


async def _contend(contender: Contender, options: argparse.Namespace, fill: bool) -> None:
    at = Measurement(options.n, options.type, options.tiers)
    async with provisioned(topology("bench", options.type, options.tiers).compiled, options.n if fill else 0):
        await contender(at)
    print(json.dumps(at.result))
