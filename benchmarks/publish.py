"""Publish with confirms, up to 1,000 without one, beside aio-pika, in turn; see benchmarks/README.md.

    AMQPFLOW_URL=amqp://guest:guest@localhost/ python benchmarks/publish.py [-n 30000] [--type quorum]

Persistent and mandatory, with a message id each; every confirm is awaited.
"""

from __future__ import annotations

import asyncio

from side_by_side import URL, Measurement, body, main

QUEUE = "bench.work"
WINDOW = 1000


async def amqpflow_many(at: Measurement) -> None:
    from amqpflow import OutgoingMessage, Publisher

    async with Publisher(URL) as publisher:
        await publisher.publish(b"", routing_key=QUEUE)  # connects
        at.start()
        results = await publisher.publish_many(
            OutgoingMessage(body=body(number), routing_key=QUEUE, content_type="application/json")
            for number in range(at.count)
        )
        at.stop()
        assert all(isinstance(each, str) for each in results)


async def amqpflow_tasks(at: Measurement) -> None:
    from amqpflow import Publisher

    async with Publisher(URL) as publisher:
        await publisher.publish(b"", routing_key=QUEUE)
        at.start()
        for first in range(0, at.count, WINDOW):
            await asyncio.gather(
                *(
                    publisher.publish(body(number), routing_key=QUEUE, content_type="application/json")
                    for number in range(first, min(first + WINDOW, at.count))
                )
            )
        at.stop()


async def aio_pika(at: Measurement) -> None:
    import aio_pika

    connection = await aio_pika.connect(URL)
    exchange = (await connection.channel()).default_exchange

    async def publish(number: int) -> None:
        message = aio_pika.Message(body(number), content_type="application/json", delivery_mode=2)
        await exchange.publish(message, QUEUE)

    at.start()
    for first in range(0, at.count, WINDOW):
        await asyncio.gather(*(publish(number) for number in range(first, min(first + WINDOW, at.count))))
    at.stop()
    await connection.close()


if __name__ == "__main__":
    main(
        __doc__ or "",
        {"amqpflow publish_many": amqpflow_many, "amqpflow publish in tasks": amqpflow_tasks, "aio-pika": aio_pika},
        count=30_000,
        fill=False,
        required={"amqpflow publish_many": 4.0},
    )
