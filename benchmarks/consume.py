"""Consume messages and ack each, beside a hand-written consumer on aio-pika, in turn; see benchmarks/README.md.

    AMQPFLOW_URL=amqp://guest:guest@localhost/ python benchmarks/consume.py [-n 30000] [--type quorum]

Both decode JSON in an async handler and hold up to 200 deliveries. amqpflow settles as documented: it knows attempts,
would publish a retry and await its confirm, and acks up to the lowest delivery that is not settled.
"""

from __future__ import annotations

import json
from typing import Any

from side_by_side import PREFETCH, URL, Measurement, main, topology

QUEUE = "bench.work"


async def amqpflow(at: Measurement) -> None:
    from amqpflow import Consumer, Message

    consumer = Consumer(topology("bench", at.queue_type), URL)
    left = at.count

    @consumer.handler(QUEUE, concurrency=PREFETCH, prefetch=PREFETCH)
    async def work(message: Message) -> None:
        nonlocal left
        message.json()
        left -= 1
        if not left:
            at.done.set()

    at.start()
    async with consumer:
        await at.done.wait()
        at.stop()


async def aio_pika(at: Measurement) -> None:
    import aio_pika

    connection = await aio_pika.connect(URL)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.get_queue(QUEUE)
    left = at.count

    async def work(message: Any) -> None:
        nonlocal left
        async with message.process():
            json.loads(message.body)
        left -= 1
        if not left:
            at.done.set()

    at.start()
    await queue.consume(work)
    await at.done.wait()
    at.stop()
    await connection.close()


if __name__ == "__main__":
    main(
        __doc__ or "",
        {"amqpflow": amqpflow, "aio-pika": aio_pika},
        count=30_000,
        fill=True,
        required={"amqpflow": 3.0},
    )
