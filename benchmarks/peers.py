"""amqpflow as a contender in a harness that offers `benchlib.contender`, through its public classes alone.

The harness gives each contender `c`: `c.url`, `c.queue`, `c.qtype`, `c.n`, `c.prefetch`, `c.opts`, and `c.start()` and
`c.stop()` around what is measured. It has filled the queue, and afterwards it counts what is left in it.

Nothing is switched off: the consumer settles as documented (confirm before ack, attempts, failure records), the handler
is async and decodes JSON, the publisher is mandatory and confirmed with a message id for each message.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchlib import contender, json_body

if TYPE_CHECKING:  # the harness loads this file in an interpreter of its own too, where amqpflow need not be
    from amqpflow import Message, OutgoingMessage, Topology


async def provision(c: Any, tiers: str = "quorum") -> Topology:
    """A topology around the queue that the harness has filled: one retry after a second, and parking."""
    from amqpflow import Topology
    from amqpflow.rabbitmq.address import resolve_address
    from amqpflow.rabbitmq.connection import connect

    document = {
        "version": 1,
        "name": "bench",
        "retry_policies": {"once": {"delays": ["1s"]}},
        "queues": {c.queue: {"type": c.qtype, "retry": "once", "tiers": {"type": tiers}}},
    }
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "topology.yaml"
        file.write_text(json.dumps(document))  # JSON is YAML
        topology = Topology.load(file)
    desired = topology.compiled.desired
    async with await connect(resolve_address(c.url), name="bench") as connection:
        channel = await connection.admin_channel()
        for exchange in desired.exchanges.values():
            await channel.exchange_declare(
                exchange.name, exchange_type=exchange.type, durable=True, arguments=dict(exchange.arguments)
            )
        for queue in desired.queues.values():
            if queue.name != c.queue:
                await channel.queue_delete(queue.name)  # of another run, with tiers of another type
                await channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in desired.bindings:
            await channel.queue_bind(binding.destination, binding.source, binding.routing_key)
        await channel.close()
    return topology


@contender("w1", "amqpflow")
async def consume(c: Any) -> None:
    from amqpflow import Consumer

    consumer = Consumer(await provision(c), c.url)
    done = asyncio.Event()
    seen = 0

    @consumer.handler(c.queue, concurrency=c.prefetch, prefetch=c.prefetch)
    async def work(message: Message) -> None:
        nonlocal seen
        message.json()
        seen += 1
        if seen == c.n:
            done.set()

    c.start()
    await consumer.start()
    await done.wait()
    c.stop()
    await consumer.stop()


@contender("w1", "amqpflow sync handler")
async def consume_in_threads(c: Any) -> None:
    from amqpflow import Consumer

    consumer = Consumer(await provision(c), c.url)
    done, loop = asyncio.Event(), asyncio.get_running_loop()
    left = [None] * (c.n - 1)

    @consumer.handler(c.queue, concurrency=c.prefetch, prefetch=c.prefetch)
    def work(message: Message) -> None:
        message.json()
        try:
            left.pop()
        except IndexError:
            loop.call_soon_threadsafe(done.set)

    c.start()
    await consumer.start()
    await done.wait()
    c.stop()
    await consumer.stop()


@contender("w2", "amqpflow seq", slow=True)
async def publish_one_at_a_time(c: Any) -> None:
    from amqpflow import Publisher

    async with Publisher(c.url) as publisher:
        c.start()
        for i in range(c.n):
            await publisher.publish(json_body(i), routing_key=c.queue, content_type="application/json")
        c.stop()


@contender("w2", "amqpflow window publish_many")
async def publish_many(c: Any) -> None:
    from amqpflow import OutgoingMessage, Publisher

    def outgoing(i: int) -> OutgoingMessage:
        return OutgoingMessage(body=json_body(i), routing_key=c.queue, content_type="application/json")

    chunk = 10 * c.opts.get("window", 1000)
    async with Publisher(c.url) as publisher:
        c.start()
        for at in range(0, c.n, chunk):
            results = await publisher.publish_many(outgoing(i) for i in range(at, min(at + chunk, c.n)))
            assert all(isinstance(each, str) for each in results)
        c.stop()


@contender("w2", "amqpflow window gather")
async def publish_from_tasks(c: Any) -> None:
    from amqpflow import Publisher

    window = c.opts.get("window", 1000)
    async with Publisher(c.url) as publisher:
        c.start()
        for at in range(0, c.n, window):
            await asyncio.gather(
                *(
                    publisher.publish(json_body(i), routing_key=c.queue, content_type="application/json")
                    for i in range(at, min(at + window, c.n))
                )
            )
        c.stop()


async def retry_once(c: Any, tiers: str) -> None:
    from w3_retry import Once

    from amqpflow import Consumer

    consumer = Consumer(await provision(c, tiers), c.url)
    done = asyncio.Event()
    once = Once(c, done.set)

    @consumer.handler(c.queue, concurrency=c.prefetch, prefetch=c.prefetch)
    async def work(message: Message) -> None:
        once(message.body)

    c.start()
    await consumer.start()
    await done.wait()
    once.stop()
    await consumer.stop()


@contender("w3", "amqpflow")
async def retry(c: Any) -> None:
    await retry_once(c, "quorum")


@contender("w3", "amqpflow classic tiers")
async def retry_over_classic_tiers(c: Any) -> None:
    await retry_once(c, "classic")
