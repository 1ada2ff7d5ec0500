"""The ways in which retry designs usually lose messages. Each test breaks something under a running consumer."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from amqpflow import Message, Park, Retry
from amqpflow.errors import PublishRefusedError
from amqpflow.model import headers as h
from amqpflow.model.message import Delivery
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.consuming.consumer import Consumer
from amqpflow.services.loading.topology import Topology
from tests.shop import PARKING, RETRY, Shop, shop
from tests.waiting import until

IDS = [f"m{number}" for number in range(8)]


def fails_once(scene: Shop) -> Any:
    """A handler that wants every message twice."""

    async def handle(message: Message) -> None:
        if message.attempt == 1:
            raise Retry
        scene.done.append(str(message.message_id))

    return handle


async def park(message: Message) -> None:
    raise Park("for good")


def force_dead_lettering(scene: Shop, *queues: str) -> None:
    """RabbitMQ tries retained messages every 180 s, or as soon as a policy of their queue changes."""
    for number, queue in enumerate(queues):
        scene.policy(f"touch-{queue}", f"^{queue}$", {"max-length": 1_000_000 + number})
        scene.management.delete("policies", scene.address.vhost, f"touch-{queue}")


# -- where retries come back to


def test_retries_that_come_back_to_a_full_work_queue_are_kept(vhost: BrokerAddress) -> None:
    """RabbitMQ tries again every 180 s; that they arrive then is tested where that can be made shorter."""

    async def scenario(queue_type: str) -> None:
        # the tier holds them for longer than it takes to fill the work queue
        work, tier = f"{queue_type}.orders", f"{queue_type}.orders.retry.5s"
        bounded = {"x-overflow": "reject-publish"}
        async with shop(vhost, {work: (5000,)}, queue_type=queue_type, arguments=bounded) as scene:
            consumer = Consumer(Topology(compiled=scene.compiled), vhost.url)
            consumer.add_handler(work, fails_once(scene), concurrency=20)
            retried = [f"m{number}" for number in range(20)]
            async with consumer:
                await scene.publish(*retried, queue=work)
                await until(lambda: consumer.totals["retried"] == len(retried))
            scene.policy(work, f"^{work}$", {"max-length": 4})
            fillers = [f"filler{number}" for number in range(100)]
            for number, filler in enumerate(fillers):
                try:
                    await scene.publish(filler, queue=work)
                except PublishRefusedError:
                    del fillers[number:]
                    break
            assert 4 <= len(fillers) < 100, "it is full"
            await until(lambda: scene.retained(tier) == len(retried), timeout=40)
            assert await scene.depth(work) == len(fillers)

    async def both() -> None:
        await asyncio.gather(scenario("quorum"), scenario("classic"))

    asyncio.run(both())


def test_the_work_queue_is_deleted_while_retries_are_on_their_way(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        # none may be back in the queue when that is deleted: it would be lost with it
        async with shop(vhost, {"orders": (1000,)}) as scene:
            consumer = scene.consumer(orders=fails_once(scene))
            async with consumer:
                await scene.publish(*IDS)
                await until(lambda: consumer.totals["retried"] == len(IDS))
                scene.delete("queues", "orders")
                await until(lambda: "orders" in consumer.problems)
                assert not consumer.healthy
                await asyncio.sleep(1.1)  # the tier's delay passes while its target is missing
                await scene.declare()
                await until(lambda: consumer.healthy)
                force_dead_lettering(scene, "orders.retry.1s")
                await scene.all_settled(IDS)

    asyncio.run(scenario())


# -- where failures go to


def test_parking_is_impossible_for_a_while(vhost: BrokerAddress) -> None:
    """What failed is held, and said; others are handled, and all of it is parked once that is possible."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            handled: list[str] = []

            async def handle(message: Message) -> None:
                handled.append(str(message.message_id))
                if not str(message.message_id).startswith("good"):
                    raise Park

            def only_one_fits() -> None:
                definition = {"max-length": 1, "overflow": "reject-publish"}
                scene.policy("full", "^orders[.]parking$", definition)

            consumer = scene.consumer(orders=handle)
            async with consumer:
                breakages = {
                    "queue": lambda: scene.delete("queues", "orders.parking"),
                    "binding": lambda: scene.unbind(PARKING, "orders.parking"),
                    "exchange": lambda: scene.delete("exchanges", PARKING),
                    "full": only_one_fits,
                }
                for what, break_it in breakages.items():
                    await scene.publish(f"before {what}")
                    await until(lambda: scene.depth("orders.parking"))
                    break_it()
                    stuck = [f"stuck by {what}"]
                    await scene.publish(*stuck)

                    async def said(what: str = what, stuck: list[str] = stuck) -> str | None:
                        # a policy is applied, and a quorum queue notices that it is full, a little late
                        if what == "full" and len(stuck) < 100 and not consumer.problems:
                            stuck.append(f"full {len(stuck)}")
                            await scene.publish(stuck[-1])
                        return consumer.problems.get("orders")

                    problem = await until(said, every=0.1)
                    assert problem.startswith("cannot park"), what
                    assert not consumer.healthy
                    await until(lambda stuck=stuck: set(stuck) <= set(handled))  # type: ignore[misc]
                    handled.clear()
                    await scene.publish(f"good after {what}", f"after {what}")
                    await until(lambda: len(handled) == 2)
                    good = list(breakages).index(what) + 1
                    await until(lambda good=good: consumer.totals["acked"] == good)  # type: ignore[misc]
                    if what == "full":
                        scene.management.delete("policies", vhost.vhost, "full")
                    await scene.declare()
                    await until(lambda: consumer.healthy)
                    expected = {*stuck, f"after {what}"}
                    parked: set[str] = set()

                    async def arrived(parked: set[str] = parked, expected: set[str] = expected) -> bool:
                        taken = await scene.take("orders.parking")
                        parked |= {each.header.properties.message_id for each in taken}
                        return parked >= expected

                    await until(arrived)
            assert await scene.account() == Counter()

    asyncio.run(scenario())


def test_a_consumer_that_stops_while_it_cannot_park_gives_its_messages_back(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            consumer = scene.consumer(orders=park)
            consumer.shutdown_timeout = 0.2
            async with consumer:
                scene.delete("exchanges", PARKING)
                await scene.publish(*IDS)
                await until(lambda: consumer.problems)
            await until(lambda: gives_back(scene))

    async def gives_back(scene: Shop) -> bool:
        return await scene.depth("orders") == len(IDS)

    asyncio.run(scenario())


def test_a_delivery_is_not_held_longer_than_half_the_consumer_timeout(vhost: BrokerAddress) -> None:
    """RabbitMQ would end the channel otherwise, and with it every other delivery on it."""

    async def scenario() -> None:
        async with shop(vhost, consumer_timeout_ms=1200) as scene:
            consumer = scene.consumer(orders=park)
            async with consumer:
                scene.delete("queues", "orders.parking")
                await scene.publish("m")
                await until(lambda: consumer.totals["requeued"])
                await until(lambda: consumer.totals["received"] > 1)
                await scene.declare()
                await until(lambda: consumer.totals["parked"])
            assert await scene.account() == Counter(["m"])

    asyncio.run(scenario())


# -- where retries go to


def test_tiers_disappear_one_after_the_other(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (50, 100, 150)}) as scene:
            consumer = scene.consumer(orders=fails_once(scene))
            async with consumer:
                scene.delete("queues", "orders.retry.50ms")
                await scene.publish(*IDS)
                await scene.all_settled(IDS)
                assert consumer.totals["retried"] == len(IDS)

                scene.unbind(RETRY, "orders.retry.100ms")
                scene.delete("queues", "orders.retry.150ms")
                await scene.publish("last")
                parked = await scene.take_one("orders.parking")
                headers = parked.header.properties.headers
                assert headers[h.REASON] == "no-route"
                assert "orders.retry.50ms" in headers[h.REASON_DETAIL]
                assert headers[h.ATTEMPT] == 1
                assert consumer.healthy

    asyncio.run(scenario())


def test_the_retry_exchange_is_deleted_in_the_middle_of_a_window(vhost: BrokerAddress) -> None:
    """The 404 closes the channel that parks other messages too: those are uncertain, and are published again."""

    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                raise Park if int(str(message.message_id)[1:]) % 2 else Retry

            consumer = scene.consumer(orders=handle)
            async with consumer:
                scene.delete("exchanges", RETRY)
                await scene.publish(*IDS)
                await until(lambda: consumer.totals["parked"] == len(IDS))
                assert consumer.healthy
            parked = await scene.take("orders.parking")
            reasons = {each.header.properties.message_id: each.header.properties.headers[h.REASON] for each in parked}
            assert reasons == {each: "no-route" if index % 2 == 0 else "parked" for index, each in enumerate(IDS)}
            # a copy that was uncertain may be there twice, with one hop id
            hops = {each.header.properties.headers[h.HOP] for each in parked}
            assert hops == {f"{each}/0/1" for each in IDS}

    asyncio.run(scenario())


def test_retries_are_confirmed_while_parking_closes_their_channel(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                if str(message.message_id) in IDS[:2]:
                    raise Park
                await fails_once(scene)(message)

            consumer = scene.consumer(orders=handle)
            async with consumer:
                scene.delete("exchanges", PARKING)
                await scene.publish(*IDS)
                await until(lambda: consumer.problems)
                await until(lambda: consumer.totals["retried"] == len(IDS) - 2)
                await scene.declare()
                await until(lambda: consumer.totals["parked"] == 2)
                await until(lambda: len(set(scene.done)) == len(IDS) - 2)
            assert set(await scene.account()) == set(IDS)

    asyncio.run(scenario())


def test_foreign_objects_on_the_retry_exchange_take_nothing_away(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            admin = await scene.connection.admin_channel()
            await admin.queue_declare("foreign", durable=True)
            await admin.exchange_declare("foreign", exchange_type="fanout", durable=True)
            await admin.queue_bind("foreign", "foreign")
            consumer = scene.consumer(orders=fails_once(scene))
            async with consumer:
                # a binding copies: the retry is still where it belongs
                await admin.queue_bind("foreign", RETRY, "orders.retry.50ms")
                await scene.publish(*IDS)
                await scene.all_settled(IDS)
                assert len(await scene.take("foreign")) == len(IDS)
                scene.done.clear()
                # an alternate exchange takes what would be returned: it is there then, and not acked into nowhere
                scene.policy("alternate", f"^{RETRY}$", {"alternate-exchange": "foreign"}, "exchanges")
                await admin.queue_unbind("foreign", RETRY, "orders.retry.50ms")
                await scene.publish(*IDS)
                await scene.all_settled(IDS)
                scene.done.clear()
                scene.delete("queues", "orders.retry.50ms")
                await scene.publish(*IDS)
                await until(lambda: consumer.totals["retried"] == 3 * len(IDS))
            found = Counter(each.header.properties.message_id for each in await scene.take("foreign"))
            assert found == Counter(IDS)

    asyncio.run(scenario())


# -- headers


def test_our_headers_count_only_in_the_queue_that_wrote_them(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,), "audit": (60,)}) as scene:
            seen: list[tuple[str, int, bool, list[str]]] = []

            async def orders(message: Message) -> None:
                raise Park

            async def audit(message: Message) -> None:
                seen.append((str(message.message_id), message.attempt, message.retry is None, list(message.headers)))
                if message.attempt == 1:
                    raise Retry
                scene.done.append(str(message.message_id))

            async with scene.consumer(orders=orders, audit=audit):
                await scene.publish("forwarded", headers={"theirs": 1})
                parked = await scene.take_one("orders.parking")
                assert parked.header.properties.headers[h.QUEUE] == "orders"
                # a handler passes on all it got, ours included
                await scene.publish("forwarded", queue="audit", headers=parked.header.properties.headers)
                await scene.all_settled(["forwarded"])
            assert seen == [("forwarded", 1, True, ["theirs"]), ("forwarded", 2, False, ["theirs"])]

    asyncio.run(scenario())


FORGERIES: dict[str, dict[str, Any]] = {
    "many attempts": {h.QUEUE: "orders", h.ATTEMPT: 999},
    "negative attempts": {h.QUEUE: "orders", h.ATTEMPT: -5},
    "attempts as text": {h.QUEUE: "orders", h.ATTEMPT: "two"},
    "a table for the queue": {h.QUEUE: {"orders": 1}, h.ATTEMPT: 1},
    "a list for the hop": {h.QUEUE: "orders", h.HOP: [1, 2], h.ATTEMPT: 1},
    "a hop that is none": {h.QUEUE: "orders", h.HOP: "////", h.ATTEMPT: 1},
    "an original that is none": {h.QUEUE: "orders", h.ORIGINAL: "x", h.ATTEMPT: 1},
    "an original of nonsense": {
        h.QUEUE: "orders",
        h.ORIGINAL: {"expiration": {}, "user_id": 7, "CC": "x"},
        h.ATTEMPT: 1,
    },
    "a history of nonsense": {h.QUEUE: "orders", h.HISTORY: [1, None, {"at": "x"}], h.ATTEMPT: 1},
    "times of nonsense": {h.QUEUE: "orders", h.DUE_AT: "soon", h.FAILED_AT: -1, h.FIRST_FAILED_AT: 1 << 60},
    "a replay of nonsense": {h.QUEUE: "orders", h.REPLAY: {"count": "x"}, h.ATTEMPT: 1},
    "an exchange of nonsense": {h.QUEUE: "orders", h.EXCHANGE: 1, h.ROUTING_KEY: None, h.ATTEMPT: 1},
    "x-death of nonsense": {"x-death": [1, 2], "x-first-death-queue": 5},
    "another of ours": {h.PREFIX + "unknown": 1},
}


def test_forged_headers_lose_nothing(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            attempts: dict[str, list[int]] = {}

            async def handle(message: Message) -> None:
                attempts.setdefault(str(message.message_id), []).append(message.attempt)
                raise ValueError("always")

            async with scene.consumer(orders=handle):
                for name, headers in FORGERIES.items():
                    await scene.publish(name, headers=headers)
                await scene.all_settled(list(FORGERIES))
            assert attempts["many attempts"] == [1000]
            assert attempts["negative attempts"] == [1, 2, 3]
            assert attempts["attempts as text"] == [1, 2, 3]
            assert attempts["a table for the queue"] == [1, 2, 3]
            assert attempts["a list for the hop"] == [2, 3]

    asyncio.run(scenario())


# -- the broker's own parking


def test_a_message_that_the_broker_parks_keeps_its_record(vhost: BrokerAddress) -> None:
    """It was retried once, and then its consumers are lost again and again."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,)}, delivery_limit=2) as scene:

            async def fail(message: Message) -> None:
                if message.attempt == 1:
                    raise ValueError("first")
                await asyncio.sleep(60)  # it is back before the consumer has stopped

            consumer = scene.consumer(orders=fail)
            consumer.shutdown_timeout = 0.1
            async with consumer:
                await scene.publish("m")
                await until(lambda: consumer.totals["retried"])
            for _ in range(10):
                if await scene.depth("orders.parking"):
                    break
                await until(lambda: scene.depth("orders"))
                channel = await scene.connection.open_channel()
                got: list[Delivery] = []
                await channel.consume("orders", got.append, prefetch=1, on_cancel=lambda: None)
                await until(lambda got=got: got)  # type: ignore[misc]
                await channel.close()
                await until(lambda: any_of(scene, "orders", "orders.parking"))
            message = await scene.take_one("orders.parking")
            headers = message.header.properties.headers
            assert headers[h.ATTEMPT] == 1
            assert headers[h.ERROR_TYPE] == "ValueError"
            assert any(
                death["reason"] == "delivery_limit" and death["queue"] == "orders" for death in headers["x-death"]
            )

    asyncio.run(scenario())


async def any_of(scene: Shop, *queues: str) -> bool:
    return any([await scene.depth(queue) for queue in queues])


@pytest.mark.releases(">=4.3")
def test_a_handler_that_outlives_the_consumer_timeout_settles_nothing(vhost: BrokerAddress) -> None:
    """RabbitMQ 4.3 cancels the consumer and gives the message to the next one; a late ack has no effect."""

    async def scenario() -> None:
        async with shop(vhost, arguments={"x-consumer-timeout": 1000}) as scene:
            started, again = asyncio.Event(), asyncio.Event()

            async def handle(message: Message) -> None:
                if message.redelivered:
                    scene.done.append(str(message.message_id))
                    again.set()
                    return
                started.set()
                await again.wait()

            consumer = scene.consumer(orders=handle)
            async with consumer:
                await scene.publish("m")
                await asyncio.wait_for(again.wait(), 60)
                await until(lambda: consumer.totals["acked"] and consumer.totals["requeued"])
                assert consumer.totals == Counter({"received": 2, "acked": 1, "requeued": 1})
            assert await scene.account() == Counter(["m"])

    asyncio.run(scenario())


# -- the publishing connection


def test_the_publishing_connection_is_lost_in_the_middle_of_a_window(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            ids = [f"m{number}" for number in range(60)]
            consumer: Consumer = scene.consumer(orders=fails_once(scene))
            async with consumer:
                await scene.publish("first")
                await until(lambda: consumer.totals["retried"])
                publishing = asyncio.create_task(scene.publish(*ids))
                await scene.close_connections("amqpflow retries")
                await publishing
                await until(lambda: len(set(scene.done)) == len(ids) + 1)
                await until(lambda: consumer.healthy)
            # uncertain ones may have been copied twice
            assert set(await scene.account()) == {"first", *ids}

    asyncio.run(scenario())
