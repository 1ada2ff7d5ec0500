"""Create a retry topology, and look at it again: amqpflow beside other ways to put the same objects on a broker.

    AMQPFLOW_URL=amqp://... python benchmarks/apply.py --queues 100 1000 --rounds 3 --only 'amqpflow|definitions'

Work queues with three retry queues and a parking queue each: 5 queues and 6 bindings a work queue. The contenders take
turns in every round, each in a process and a virtual host of its own that is deleted afterwards; medians and ratios are
printed. The user has to be an administrator. Deleting thousands of queues takes a broker a while, which is waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import aio_pika
import httpx2

from amqpflow import Topology
from amqpflow.api import functions as api
from amqpflow.model.resources import BrokerState
from amqpflow.rabbitmq.address import BrokerAddress, resolve_address

Numbers = dict[str, float]
BASELINE = "definitions import"


def topology(count: int, kind: str) -> Topology:
    """`count` work queues; with kind classic everything is classic."""
    other = ", tiers: {type: classic}, parking: {type: classic}" if kind == "classic" else ""
    lines = (
        f"  orders.{number:04}: {{bindings: [{{exchange: app, routing_key: o{number}}}]{other}}}"
        for number in range(count)
    )
    text = (
        "version: 1\nname: bench\n"
        f"defaults: {{queue: {{type: {kind}}}, retry: r}}\n"
        "retry_policies: {r: {delays: [1s, 10s, 1m]}}\n"
        "exchanges: {app: {type: direct}}\nqueues:\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "bench.yaml"
        file.write_text(text + "\n".join(lines) + "\n")
        return Topology.load(file)


class Api:
    """The management API, as any script uses it."""

    def __init__(self, address: BrokerAddress) -> None:
        self.url, self.vhost = f"{address.management_candidates()[0]}/api", quote(address.vhost, safe="")
        self.client = httpx2.AsyncClient(
            auth=address.management_credentials(), timeout=900, limits=httpx2.Limits(max_connections=32)
        )

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.client.request(method, f"{self.url}/{path}", json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None


async def by_amqpflow(made: Topology, address: BrokerAddress) -> Numbers:
    began = time.perf_counter()
    report = await api.apply(made, address)
    created = time.perf_counter() - began
    assert report.complete
    began = time.perf_counter()
    assert (await api.plan(made, address)).nothing_to_do
    planned = time.perf_counter() - began
    began = time.perf_counter()
    assert not (await api.apply(made, address)).done
    return {"fresh": created, "plan": planned, "again": time.perf_counter() - began}


def definitions(state: BrokerState) -> dict[str, Any]:
    return {
        "exchanges": [
            {"name": e.name, "type": e.type, "durable": True, "auto_delete": False, "internal": False,
             "arguments": dict(e.arguments)} for e in state.exchanges.values()
        ],
        "queues": [
            {"name": q.name, "durable": True, "auto_delete": False, "arguments": dict(q.arguments)}
            for q in state.queues.values()
        ],
        "bindings": [
            {"source": b.source, "destination": b.destination, "destination_type": b.destination_type,
             "routing_key": b.routing_key, "arguments": dict(b.arguments)} for b in state.bindings
        ],
    }  # fmt: skip


async def by_definitions(made: Topology, address: BrokerAddress) -> Numbers:
    management = Api(address)
    body = definitions(made.compiled.desired)

    async def post() -> None:
        await management.call("POST", f"definitions/{management.vhost}", body)

    return await twice(post)


async def by_aio_pika(made: Topology, address: BrokerAddress) -> Numbers:
    state = made.compiled.desired
    async with await aio_pika.connect(address.url) as connection:
        channel = await connection.channel()

        async def declare() -> None:
            for exchange in state.exchanges.values():
                kind = aio_pika.ExchangeType(exchange.type)
                await channel.declare_exchange(exchange.name, kind, durable=True, arguments=dict(exchange.arguments))
            queues = {
                queue.name: await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
                for queue in state.queues.values()
            }
            for binding in state.bindings:
                await queues[binding.destination].bind(binding.source, binding.routing_key)

        return await twice(declare)


def requests(state: BrokerState, vhost: str) -> Iterator[list[tuple[str, str, Any]]]:
    named = definitions(state)
    for kind in ("exchanges", "queues"):
        yield [("PUT", f"{kind}/{vhost}/{quote(each.pop('name'), safe='')}", each) for each in named[kind]]
    yield [
        ("POST", f"bindings/{vhost}/e/{quote(each['source'], safe='')}/q/{quote(each['destination'], safe='')}", each)
        for each in named["bindings"]
    ]


async def by_http(made: Topology, address: BrokerAddress, at_once: int) -> Numbers:
    management = Api(address)

    async def put() -> None:
        for stage in requests(made.compiled.desired, management.vhost):
            pending = iter(stage)

            async def take(pending: Iterator[tuple[str, str, Any]] = pending) -> None:
                for request in pending:
                    await management.call(*request)

            await asyncio.gather(*(take() for _ in range(at_once)))

    return await twice(put)


async def twice(work: Callable[[], Awaitable[None]]) -> Numbers:
    began = time.perf_counter()
    await work()
    middle = time.perf_counter()
    await work()
    return {"fresh": middle - began, "again": time.perf_counter() - middle}


CONTENDERS: dict[str, Callable[[Topology, BrokerAddress], Awaitable[Numbers]]] = {
    "amqpflow": by_amqpflow,
    BASELINE: by_definitions,
    "aio-pika, one by one": by_aio_pika,
    "HTTP PUT, one by one": lambda made, address: by_http(made, address, 1),
    "HTTP PUT, 32 at once": lambda made, address: by_http(made, address, 32),
}


async def contend(name: str, count: int, kind: str, address: BrokerAddress) -> Numbers:
    """One run in a virtual host of its own."""
    own = address.with_vhost(f"amqpflow-bench-{uuid4().hex[:8]}")
    management = Api(own)
    await management.call("PUT", f"vhosts/{management.vhost}", {})
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    await management.call("PUT", f"permissions/{management.vhost}/{quote(own.user, safe='')}", everything)
    try:
        made = topology(count, kind)
        numbers = await CONTENDERS[name](made, own)
        numbers["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        state = made.compiled.desired
        there = await management.call("GET", f"definitions/{management.vhost}")
        found = len(there["queues"]), len(there["bindings"])
        assert found == (len(state.queues), len(state.bindings)), found
        numbers["lists"] = await bare_lists(management)
        return numbers
    finally:
        await management.call("DELETE", f"vhosts/{management.vhost}")


async def bare_lists(management: Api) -> float:
    """The list calls that a comparison needs, answers parsed."""
    began = time.perf_counter()
    columns = "name,durable,auto_delete,exclusive,type,arguments"
    await asyncio.gather(
        management.call("GET", f"queues/{management.vhost}?disable_stats=true&columns={columns}"),
        management.call("GET", f"bindings/{management.vhost}"),
        *(management.call("GET", f"{kind}/{management.vhost}") for kind in ("exchanges", "policies")),
    )
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queues", type=int, nargs="+", default=[100], help="work queues")
    parser.add_argument("--type", choices=["quorum", "classic"], default="classic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="regular expression on names")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds between two runs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    address = resolve_address()
    if options.one:
        print(json.dumps(asyncio.run(contend(options.one, options.queues[0], options.type, address))))
        return
    for count in options.queues:
        runs: dict[str, list[Numbers]] = {name: [] for name in CONTENDERS if re.search(options.only, name)}
        for _ in range(options.rounds):
            for name in random.sample(sorted(runs), len(runs)):
                command = [sys.executable, __file__, "--one", name, "--queues", str(count), "--type", options.type]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                else:
                    runs[name].append(json.loads(done.stdout))
                time.sleep(options.settle)
        table(count, options.type, {name: found for name, found in runs.items() if found})


def table(count: int, kind: str, runs: dict[str, list[Numbers]]) -> None:
    middle = {name: {key: median(each[key] for each in found) for key in found[0]} for name, found in runs.items()}
    lists = median(each["lists"] for found in runs.values() for each in found)
    base = middle.get(BASELINE, next(iter(middle.values())))["fresh"]
    print(f"\n{count} work queues, {5 * count} {kind} queues, {6 * count} bindings; bare lists {lists:.2f} s")
    print(f"{'':24}{'create':>9}{'ratio':>7}{'again':>9}{'/lists':>7}{'plan':>8}{'/lists':>7}{'MiB':>6}")
    for name, row in sorted(middle.items(), key=lambda each: each[1]["fresh"]):
        planned = f"{row['plan']:7.2f}s{row['plan'] / lists:7.2f}" if "plan" in row else " " * 15
        print(
            f"{name:24}{row['fresh']:8.2f}s{row['fresh'] / base:7.2f}{row['again']:8.2f}s{row['again'] / lists:7.2f}"
            f"{planned}{row['MiB']:6.0f}"
        )


if __name__ == "__main__":
    main()
