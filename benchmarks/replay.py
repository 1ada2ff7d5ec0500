"""Parked messages back to their work queue, beside RabbitMQ's own shovel and a loop on aio-pika, in turn.

    AMQPFLOW_URL=amqp://guest:guest@localhost/ python benchmarks/replay.py [-n 30000] [--type quorum]

All await the confirm before the ack. amqpflow keeps its journal, on disk, and turns failure records into history; the
shovel, which takes everything and runs in the broker, and the loop copy what is there. "Every tenth" reads all, replays
a tenth and leaves the rest in place; its rate is of what is read, and the shovel has no such thing. The shovel takes
part where its plugin is enabled and the management API answers (`AMQPFLOW_MANAGEMENT_URL`).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import tempfile
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from side_by_side import PREFETCH, URL, Measurement, body, main, topology

SHOVEL = "RabbitMQ's shovel"
HEADERS = {
    "x-death": [
        {
            "count": 3,
            "reason": "rejected",
            "queue": "bench.work",
            "exchange": "bench",
            "routing-keys": ["bench.work"],
        }
    ],
    "x-error": "ValueError: amount must be positive",
    "x-attempts": 4,
    "tenant": "t1",
}


async def parked(at: Measurement) -> str:
    """Fill the parking queue, and tell its name."""
    from amqpflow import OutgoingMessage, Publisher

    (routes,) = topology("bench", at.queue_type, at.tiers).compiled.routes.values()
    async with Publisher(URL) as publisher:
        results = await publisher.publish_many(
            OutgoingMessage(
                body=body(number), routing_key=routes.parking_queue, message_id=f"m-{number:08d}", headers=HEADERS
            )
            for number in range(at.count)
        )
    assert all(isinstance(each, str) for each in results)
    return routes.parking_queue


async def _amqpflow(at: Measurement, *, tenth: bool) -> None:
    from amqpflow import ReplayRequest, replay
    from amqpflow.services.replaying import replayer  # noqa: F401 - imports are not measured

    await parked(at)
    choice = ReplayRequest(select=lambda each: (each.message_id or "").endswith("7")) if tenth else None
    with tempfile.TemporaryDirectory() as journal:
        at.start()
        report = await replay(topology("bench", at.queue_type, at.tiers), URL, choice=choice, journal=journal)
        at.stop()
    assert report.complete, report.stopped
    assert report.replayed == (at.count // 10 if tenth else at.count)


async def amqpflow(at: Measurement) -> None:
    await _amqpflow(at, tenth=False)


async def amqpflow_every_tenth(at: Measurement) -> None:
    await _amqpflow(at, tenth=True)


async def _aio_pika(at: Measurement, *, tenth: bool) -> None:
    import aio_pika

    source = await parked(at)
    connection = await aio_pika.connect(URL)
    channel = await connection.channel()
    # what stays is held to the end
    await channel.set_qos(prefetch_count=min(at.count, 65_535) if tenth else PREFETCH)
    queue = await channel.get_queue(source)
    left, done = at.count, asyncio.Event()
    last: Any = None

    async def move(message: Any) -> None:
        nonlocal left, last
        last = message
        if not tenth or (message.message_id or "").endswith("7"):
            await channel.default_exchange.publish(message, "bench.work", mandatory=True)
            await message.ack()
        left -= 1
        if not left:
            done.set()

    at.start()
    tag = await queue.consume(move)
    await done.wait()
    await queue.cancel(tag)
    await channel.close()  # gives back what is held
    at.stop()
    await connection.close()


async def aio_pika(at: Measurement) -> None:
    await _aio_pika(at, tenth=False)


async def aio_pika_every_tenth(at: Measurement) -> None:
    await _aio_pika(at, tenth=True)


async def shovel(at: Measurement) -> None:
    from amqpflow.rabbitmq.address import resolve_address
    from amqpflow.rabbitmq.connection import connect

    source = await parked(at)
    uri = URL.rstrip("/")  # to the broker a URL that ends in a slash names a virtual host without a name
    value = {
        "src-protocol": "amqp091",
        "src-uri": uri,
        "src-queue": source,
        "src-prefetch-count": 1000,
        "src-delete-after": "queue-length",
        "dest-protocol": "amqp091",
        "dest-uri": uri,
        "dest-queue": "bench.work",
        "ack-mode": "on-confirm",
        "dest-add-forward-headers": False,
    }
    async with await connect(resolve_address(URL), name="amqpflow benchmark") as connection:
        channel = await connection.open_channel()
        at.start()
        _shovel("PUT", value)
        while (await channel.queue_counts("bench.work")).ready < at.count:
            await asyncio.sleep(0.02)
        at.stop()
        await channel.close()
    await asyncio.sleep(1)  # it deletes itself
    _shovel("DELETE")


def _shovel(method: str, value: object = None) -> str:
    """What the management API says against it; empty when it took it."""
    from amqpflow.rabbitmq.address import resolve_address

    address = resolve_address(URL, os.environ.get("AMQPFLOW_MANAGEMENT_URL"))
    credentials = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
    request = Request(
        f"{_management()}/api/parameters/shovel/{quote(address.vhost, safe='')}/amqpflow-bench",
        data=json.dumps({"value": value}).encode() if value is not None else None,
        headers={"content-type": "application/json", "authorization": f"Basic {credentials}"},
        method=method,
    )
    try:
        with urlopen(request, timeout=10):
            return ""
    except URLError as error:
        return error.read().decode(errors="replace") if hasattr(error, "read") else str(error)


def _management() -> str:
    from amqpflow.rabbitmq.address import resolve_address

    given = os.environ.get("AMQPFLOW_MANAGEMENT_URL")
    return (given or resolve_address(URL).management_candidates()[-1]).rstrip("/")


def _has_shovel() -> bool:
    return "alidation failed" in _shovel("PUT", {})  # with the plugin it says what an empty one lacks


if __name__ == "__main__":
    with_shovel = _has_shovel()
    contenders = {
        "amqpflow": amqpflow,
        "amqpflow, every tenth": amqpflow_every_tenth,
        "aio-pika": aio_pika,
        "aio-pika, every tenth": aio_pika_every_tenth,
    }
    main(
        __doc__ or "",
        {**contenders, SHOVEL: shovel} if with_shovel else contenders,
        count=30_000,
        fill=False,
        baseline=SHOVEL if with_shovel else "aio-pika",
        required={"amqpflow": 0.8, "amqpflow, every tenth": 0.5} if with_shovel else None,
    )
