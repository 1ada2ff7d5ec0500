"""Every message fails once, waits a second and succeeds, beside a hand-written retry on aio-pika, in turn.

    AMQPFLOW_URL=amqp://guest:guest@localhost/ python benchmarks/retry.py [-n 10000] [--type quorum] [--tiers quorum]

Both publish to the same retry queue, await the confirm, then ack. amqpflow writes its failure record into the copy as
well. With `--tiers quorum`, amqpflow's default, the retry queue dead-letters at least once, which bounds both.
"""

from __future__ import annotations

import json
from typing import Any

from side_by_side import PREFETCH, URL, Measurement, main, topology

QUEUE = "bench.work"


class Once:
    """Fails the first time that it sees a message."""

    def __init__(self, at: Measurement) -> None:
        self.at = at
        self.seen: set[int] = set()
        self.left = at.count

    def __call__(self, data: bytes) -> None:
        number = json.loads(data)["id"]
        if number not in self.seen:
            self.seen.add(number)
            raise ConnectionError("once")
        self.left -= 1
        if not self.left:
            self.at.done.set()


async def amqpflow(at: Measurement) -> None:
    from amqpflow import Consumer, Message

    consumer = Consumer(topology("bench", at.queue_type, at.tiers), URL)
    once = Once(at)

    @consumer.handler(QUEUE, concurrency=PREFETCH, prefetch=PREFETCH)
    async def work(message: Message) -> None:
        once(message.body)

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
    exchange = channel.default_exchange
    once = Once(at)

    async def work(message: Any) -> None:
        try:
            once(message.body)
        except ConnectionError:
            copy = aio_pika.Message(
                message.body,
                headers={**message.headers, "attempt": 1},
                content_type=message.content_type,
                message_id=message.message_id,
                delivery_mode=2,
            )
            await exchange.publish(copy, f"{QUEUE}.retry.1s")
        await message.ack()

    at.start()
    await queue.consume(work)
    await at.done.wait()
    at.stop()
    await connection.close()


if __name__ == "__main__":
    main(
        __doc__ or "",
        {"amqpflow": amqpflow, "aio-pika": aio_pika},
        count=10_000,
        fill=True,
        tiers="classic",
        required={"amqpflow": 2.2},
    )
