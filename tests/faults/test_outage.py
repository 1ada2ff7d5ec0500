"""What a handler depends on is down: the queue waits where it is, and is not sent through its retries into parking."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from amqpflow import Ack, Breaker, Message, Pause
from amqpflow.model import event as e
from amqpflow.model import headers as h
from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.selection import BrokerUnderTest
from tests.shop import Shop, connections_of, cut, shop
from tests.waiting import until

both_types = pytest.mark.parametrize("queue_type", ["quorum", "classic"])


class Dependency:
    """Up or down; counts who asked it while it was down."""

    def __init__(self) -> None:
        self.up = False
        self.asked: list[str | None] = []

    async def use(self, message: Message) -> None:
        await asyncio.sleep(0)
        if not self.up:
            self.asked.append(message.message_id)
            raise ConnectionError("connection refused")


async def lost_counts(scene: Shop, queue: str) -> list[int]:
    """The delivery counts that a quorum queue holds against the messages that are ready in it."""
    channel = await scene.connection.admin_channel()
    counts = []
    while (message := await channel.basic_get(queue)).delivery.name == "Basic.GetOk":
        headers = message.header.properties.headers or {}
        counts.append(int(headers.get("x-delivery-count") or 0) if message.delivery.redelivered else 0)
    await channel.close()
    return counts


@both_types
def test_a_thousand_messages_wait_while_the_dependency_is_down(vhost: BrokerAddress, queue_type: str) -> None:
    ids = [f"m{number}" for number in range(1000)]

    async def scenario() -> None:
        async with shop(vhost, {"orders": (100, 200, 400)}, queue_type=queue_type, delivery_limit=4) as scene:
            dependency, states = Dependency(), list[str]()

            async def handle(message: Message) -> None:
                await dependency.use(message)
                scene.done.append(str(message.message_id))

            await scene.publish(*ids)
            consumer = scene.consumer()
            breaker = Breaker(minimum=10, open_for=0.2, errors=(ConnectionError,))
            consumer.add_handler("orders", handle, concurrency=10, prefetch=100, breaker=breaker)
            consumer.subscribe(lambda event: states.append(event.name), e.ConsumerEvent)
            async with consumer:
                # longer than all the tiers together, and more openings than the delivery limit
                await until(lambda: states.count("breaker.half_open") >= 8)
                assert "breaker" in consumer.problems["orders"]
                assert not consumer.healthy
                tries = states.count("breaker.half_open")
                assert len(dependency.asked) <= 10 + 9 + tries, "those that opened it or ran then, and one for each try"
                dependency.up = True
                await until(lambda: len(scene.done) == len(ids), timeout=90)
                await until(lambda: consumer.healthy)
                assert consumer.totals["parked"] == 0
                assert consumer.totals["retried"] == len(dependency.asked)
            assert sorted(scene.done) == sorted(ids), "once each"
            assert states[0] == "consumer.started"
            assert states.count("consumer.paused") == states.count("breaker.closed") == states.count("consumer.resumed")

    asyncio.run(scenario())


@both_types
def test_an_outage_uses_up_no_delivery_limit(vhost: BrokerAddress, broker: BrokerUnderTest, queue_type: str) -> None:
    """What is prefetched when it opens, again and again, is not counted (fact 3.3)."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}, queue_type=queue_type) as scene:
            half_open: list[e.BreakerHalfOpen] = []

            async def handle(message: Message) -> None:
                raise ConnectionError

            await scene.publish(*(f"m{number}" for number in range(50)))
            consumer = scene.consumer()
            breaker = Breaker(minimum=1, open_for=0.1)
            consumer.add_handler("orders", handle, concurrency=2, prefetch=40, breaker=breaker)
            consumer.subscribe(half_open.append, "breaker.half_open")
            async with consumer:
                await until(lambda: len(half_open) >= 6)
            await until(lambda: _all_ready(scene, 50))
            counts = await lost_counts(scene, "orders")
            # before RabbitMQ 4.3 the stop counts once, once what is on its way when the consumer is cancelled first
            # (fact 6.12), and once what was about to start when the breaker opened; none of the openings after it does
            assert max(counts, default=0) <= (0 if broker.version >= (4, 3) or queue_type == "classic" else 3)

    asyncio.run(scenario())


async def _all_ready(scene: Shop, count: int) -> bool:
    return await scene.depth("orders") + await scene.depth("orders.retry.1m") == count


@pytest.mark.one_broker
def test_the_open_time_doubles_up_to_the_longest(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}) as scene:
            opened: list[e.BreakerOpened] = []

            async def handle(message: Message) -> None:
                raise ConnectionError

            await scene.publish(*(f"m{number}" for number in range(10)))
            consumer = scene.consumer()
            breaker = Breaker(trip_on=("ConnectionError",), open_for=0.05, longest=0.15)
            consumer.add_handler("orders", handle, concurrency=1, breaker=breaker)
            consumer.subscribe(opened.append, "breaker.opened")
            async with consumer:
                await until(lambda: len(opened) >= 4)
            assert [round(each.open_for, 2) for each in opened[:4]] == [0.05, 0.1, 0.15, 0.15]
            assert opened[0].reason == "ConnectionError: "

    asyncio.run(scenario())


@both_types
@pytest.mark.one_broker
def test_a_handler_pauses_its_queue(vhost: BrokerAddress, queue_type: str) -> None:
    """A 503 with Retry-After: its message comes again when the pause is over, and no other comes before."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (100, 300)}, queue_type=queue_type) as scene:
            times: dict[str, list[float]] = {}
            clock = asyncio.get_running_loop().time

            async def handle(message: Message) -> Any:
                times.setdefault(str(message.message_id), []).append(clock())
                if message.message_id == "m0" and message.attempt == 1:
                    raise Pause(for_=1.0, reason="503")
                scene.done.append(str(message.message_id))
                return Ack()

            ids = [f"m{number}" for number in range(30)]
            await scene.publish(*ids)
            consumer = scene.consumer()
            consumer.add_handler("orders", handle, concurrency=1, prefetch=10)
            async with consumer:
                problem = await until(lambda: consumer.problems.get("orders"))
                assert problem == "breaker open: a handler said Pause: 503"
                await until(lambda: len(scene.done) == len(ids))
                await until(lambda: consumer.healthy)
                assert consumer.totals["retried"] == 1
            begin = times["m0"][0]
            others = [each - begin for name in ids[1:] for each in times[name]]
            assert min(others) >= 1.0
            assert sorted(scene.done) == sorted(ids)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_pause_counts_as_an_attempt_and_parks_at_the_end(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,)}) as scene:

            async def handle(message: Message) -> None:
                raise Pause(for_=0.05)

            async with scene.consumer(orders=handle):
                await scene.publish("m")
                parked = await scene.take_one("orders.parking")
            headers = parked.header.properties.headers
            assert headers[h.REASON] == "exhausted"
            assert headers[h.ERROR_TYPE] == "Pause"
            assert headers[h.ATTEMPT] == 2

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_an_outage_outlives_its_connection(vhost: BrokerAddress) -> None:
    """A new connection does not start to consume what the breaker keeps back."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,)}) as scene:
            dependency = Dependency()

            async def handle(message: Message) -> None:
                await dependency.use(message)
                scene.done.append(str(message.message_id))

            ids = [f"m{number}" for number in range(20)]
            consumer = scene.consumer()
            breaker = Breaker(trip_on=(ConnectionError,), open_for=6)
            consumer.add_handler("orders", handle, concurrency=1, prefetch=5, breaker=breaker)
            started: list[Any] = []
            consumer.subscribe(started.append, "consumer.started")
            opened = connections_of(consumer)
            async with consumer:
                await scene.publish(*ids)
                await until(lambda: consumer.problems)
                dependency.up = True
                cut(opened[:1])
                await until(lambda: len(started) == 2)
                assert scene.done == []
                assert "breaker" in consumer.problems["orders"]
                await until(lambda: set(scene.done) == set(ids))  # the cut may have taken an ack along
                await until(lambda: consumer.healthy)
            assert len(dependency.asked) == 1

    asyncio.run(scenario())
