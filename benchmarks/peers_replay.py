"""Replay as a contender in a harness that offers `benchlib.contender`, through the public functions alone.

The harness gives `c`: `c.url`, `c.mgmt`, `c.n`, `c.qtype`, `c.opts`, and `c.start()` and `c.stop()` around what is
measured. It has filled the queue `parking` with messages for `work`, and counts afterwards what is in both.

Nothing is switched off: intent and confirm are in the journal, on disk; publishes are mandatory and confirmed; what
is replayed has its failure record turned into history.
"""

from __future__ import annotations

import gc
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchlib import contender

if TYPE_CHECKING:  # the harness loads this file in an interpreter of its own too, where amqpflow need not be
    from amqpflow import Topology


async def provision(c: Any) -> Topology:
    """A topology around the two queues that are there."""
    from amqpflow import Topology
    from amqpflow.rabbitmq.address import resolve_address
    from amqpflow.rabbitmq.connection import connect

    document = {
        "version": 1,
        "name": "bench",
        "retry_policies": {"once": {"delays": ["1s"]}},
        "queues": {"work": {"type": c.qtype, "retry": "once", "parking": {"queue": "parking"}}},
    }
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "topology.yaml"
        file.write_text(json.dumps(document))  # JSON is YAML
        topology = Topology.load(file)
    async with await connect(resolve_address(c.url), name="bench") as connection:
        channel = await connection.admin_channel()
        for exchange in topology.compiled.desired.exchanges.values():
            await channel.exchange_declare(exchange.name, exchange_type=exchange.type, durable=True)
        await channel.queue_bind("work", "bench.retry", "work")
        await channel.close()
    return topology


async def _replay(c: Any, journal: str, choice: Any = None) -> None:
    from amqpflow import ReadOptions
    from amqpflow.api import functions as api
    from amqpflow.rabbitmq.address import resolve_address
    from amqpflow.services.replaying import replayer  # noqa: F401 - imports are not measured

    topology = await provision(c)
    gc.set_threshold(20_000, 20, 20)  # as the command does
    address = resolve_address(c.url, c.mgmt)
    options = ReadOptions(unverified=True)
    c.start()
    report = await api.replay(topology, address, queue="work", choice=choice, journal=journal, options=options)
    c.stop()
    if not report.complete:
        raise RuntimeError(f"{report.stopped} {report.left_behind[:3]}")


@contender("w4", "amqpflow")
async def replay_all(c: Any) -> None:
    with tempfile.TemporaryDirectory(dir=c.opts.get("journal")) as directory:
        await _replay(c, directory)
