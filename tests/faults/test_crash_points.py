"""A consumer is killed at every point of a settlement: no message is lost, and a second copy is told by its hop id."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from amqpflow import Consumer, Message, Outcome
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.loading.topology import Topology
from tests.faults.die_at_step import Point, crash_topology, points, settle
from tests.shop import Shop, hop_of
from tests.topologies import connected
from tests.waiting import until

ROOT = Path(__file__).parents[2]
MESSAGES = 3
SUCCEEDING = ("retry", "error", "pause", "round")  #: outcomes after which the second attempt succeeds


async def consumers_that_die(shop: Shop, kind: str) -> set[str]:
    """Run them all; the points they reached."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.die_at_step", shop.address.url, shop.address.vhost, kind),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 150)
    return set(output.decode().splitlines())


def headers_that_leave_no_room(frame_max: int) -> dict[str, Any]:
    return {"large": "x" * (frame_max - 200)}


@pytest.mark.parametrize("kind", ["quorum", "classic", pytest.param("native", marks=pytest.mark.releases(">=4.3"))])
def test_no_message_is_lost_wherever_a_consumer_is_killed(vhost: BrokerAddress, kind: str) -> None:
    compiled = crash_topology(vhost.vhost, kind)
    finished: dict[str, list[str]] = defaultdict(list)  # by queue, the hop of each message a handler finished with

    async def scenario() -> None:
        connection = await connected(vhost, compiled)
        shop = Shop(vhost, compiled, connection)
        for point in points(kind):
            unpublishable = point.outcome == "unpublishable"
            headers = headers_that_leave_no_room(connection.frame_max) if unpublishable else None
            await shop.publish(*(f"m{number}" for number in range(MESSAGES)), queue=point.queue, headers=headers)

        assert await consumers_that_die(shop, kind) == {each.queue for each in points(kind)}

        async with survivor() as consumer:
            for point in points(kind):
                await until(lambda point=point: is_settled(shop, point), timeout=30)  # type: ignore[misc]
            # nothing comes after it: no copy is still on its way
            for queue in compiled.desired.queues:
                if not queue.endswith(".parking"):
                    await until(lambda queue=queue: is_empty(shop, queue))  # type: ignore[misc]
            # a second copy that is parked is no sign that the last message is
            await until(lambda: has_settled_all(consumer))
        for point in points(kind):
            await check(shop, point)
        await connection.close()

    def survivor() -> Consumer:
        """One consumer that finishes what the killed ones left."""
        consumer = Consumer(Topology(compiled=compiled), vhost.url)
        for point in points(kind):

            async def handle(message: Message, point: Point = point) -> Outcome:
                again = message.attempt > 1 and point.outcome in SUCCEEDING  # native: a crash is an attempt too
                if point.outcome == "discard" or again:
                    finished[point.queue].append(message.hop)
                return settle(point, message)

            consumer.add_handler(point.queue, handle, concurrency=MESSAGES)
        return consumer

    def has_settled_all(consumer: Consumer) -> bool:
        return consumer.totals["received"] * 2 == consumer.totals.total()

    async def is_empty(shop: Shop, queue: str) -> bool:
        return await shop.depth(queue) == 0

    async def is_settled(shop: Shop, point: Point) -> bool:
        if point.outcome == "discard":
            return await is_empty(shop, point.queue)
        if point.outcome in SUCCEEDING:
            return len(set(finished[point.queue])) >= MESSAGES
        return await shop.depth(f"{point.queue}.parking") >= MESSAGES

    async def check(shop: Shop, point: Point) -> None:
        parked = await shop.take(f"{point.queue}.parking")
        if point.outcome == "unpublishable":
            ids = Counter(each.header.properties.message_id for each in parked)
            assert ids == Counter(f"m{number}" for number in range(MESSAGES)), point
            return
        hops = finished[point.queue] + [hop_of(each) for each in parked]
        if point.outcome == "discard":
            assert len(hops) >= MESSAGES - 1, point
            return
        # a native retry writes no hop: the message that comes back is the one that came
        attempt = 0 if kind == "native" and point.outcome in SUCCEEDING else 1
        wanted = {f"m{number}/0/{attempt}" for number in range(MESSAGES)}
        assert set(hops) == wanted, point
        # one delivery was in flight, and only between its publish and its ack may it be copied twice
        assert len(hops) - len(wanted) <= (0 if point.step == "publish.before" else 1), point

    asyncio.run(scenario())
