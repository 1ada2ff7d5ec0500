"""Replay on a real RabbitMQ: what was parked is in its work queue, once, or still parked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

from amqpflow.delivery.incoming import Incoming
from amqpflow.errors import NotAppliedError, RefusedError, UsageError
from amqpflow.model import headers as h
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties
from amqpflow.model.resources import BrokerState
from amqpflow.model.routes import CompiledTopology
from amqpflow.model.wire import encode_content_header
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.replay import Destination
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.reader import ParkingReader
from amqpflow.services.reading.requeueing import Requeueing
from amqpflow.services.replaying import sending
from amqpflow.services.replaying.plan import plan_replay
from amqpflow.services.replaying.replayer import replay_parked
from amqpflow.services.replaying.request import ReplayRequest
from tests.brokers.selection import BrokerUnderTest
from tests.faults.proxy import Proxy
from tests.integration.test_channel import publish_raw
from tests.parked import (
    delivered,
    depth,
    depth_becomes,
    drained,
    list_parked,
    park,
    parked_by_broker,
    parking_publish,
    publish,
    workplace,
)
from tests.topologies import topology
from tests.waiting import until

WORK = "orders"
PARKING = "orders.parking"


def shop(vhost: BrokerAddress, **options: Any) -> CompiledTopology:
    return topology({WORK: [1000]}, vhost=vhost.vhost, **options)


def classic_parking(compiled: CompiledTopology) -> CompiledTopology:
    parking = replace(compiled.desired.queues[PARKING], arguments={"x-queue-type": "classic"})
    return replace(compiled, desired=replace(compiled.desired, queues={**compiled.desired.queues, PARKING: parking}))


def ends_with(end: str, parked: ParkedMessage) -> bool:
    return (parked.message_id or "").endswith(end)


def ids(deliveries: list[Delivery]) -> list[str | None]:
    return [each.properties.message_id for each in deliveries]


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_two_thousand_messages_are_replayed_in_their_order(vhost: BrokerAddress, kind: str) -> None:
    compiled = shop(vhost, queue_type=kind)
    expected = [f"m{n}" for n in range(2000)]

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in expected])
            report = await replay_parked(broker, compiled, WORK)
            assert (report.replayed, report.complete, report.remaining) == (2000, True, 0)
            assert report.groups == {("parked", "ValueError"): 2000}
            assert await depth(connection, PARKING) == 0
            taken = await drained(connection, WORK, 2000)
            assert ids(taken) == expected
            assert {(each.properties.headers or {})[h.HOP] for each in taken} == {f"{each}/1/0" for each in expected}

    asyncio.run(go())


def test_a_replayed_message_is_the_first_attempt_of_the_message_that_was_published(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)
    original = delivered(
        WORK,
        message_id="m",
        headers={"their": [1, None, {"x": 0.1}], "CC": ["nowhere"]},
        content_type="application/json",
        correlation_id="c",
        reply_to="r",
        expiration="50",
        user_id="somebody",
        body=b'{"n": 1}',
    )

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [original])
            await replay_parked(broker, compiled, WORK)
            await asyncio.sleep(0.2)  # were the expiration still on it, it would be gone
            (again,) = map(Incoming, await drained(connection, WORK, 1))
            assert again.properties == replace(Incoming(original).properties, delivery_mode=2)
            assert (again.exchange, again.routing_key) == (original.exchange, original.routing_key)
            assert again.attempts_made == 0
            assert again.delivery.properties.priority is None

    asyncio.run(go())


def test_what_rabbitmq_parked_comes_back_as_it_was_first_published(vhost: BrokerAddress) -> None:
    compiled = shop(vhost, delivery_limit=1)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await parked_by_broker(connection, compiled, WORK, "m")
            report = await replay_parked(broker, compiled, WORK)
            assert report.groups == {("broker", "delivery_limit"): 1}
            (again,) = map(Incoming, await drained(connection, WORK, 1))
            assert (again.exchange, again.routing_key) == ("", WORK)
            assert again.properties.headers == {}
            assert again.record is not None
            assert [each.error_type for each in again.record.history] == ["broker: delivery_limit"]

    asyncio.run(go())


def test_a_limit_replays_the_oldest(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(500)])
            await list_parked(broker, compiled)  # gives everything back once: the rest must stay behind it
            report = await replay_parked(broker, compiled, WORK, choice=ReplayRequest(limit=7))
            assert (report.replayed, report.complete, report.remaining) == (7, True, 493)
            assert ids(await drained(connection, WORK, 7)) == [f"m{n}" for n in range(7)]
            assert ids(await drained(connection, PARKING, 493)) == [f"m{n}" for n in range(7, 500)]

    asyncio.run(go())


def test_the_other_work_queues_messages_stay_in_a_shared_parking_queue_in_their_order(vhost: BrokerAddress) -> None:
    compiled = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost, parking="shared.parking")
    # so many of the other queue come first that one consumer's prefetch is full of them
    order = ["a"] * 1500 + ["b", "a"] * 300

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(each, message_id=f"m{n}") for n, each in enumerate(order)])
            plan = await plan_replay(broker, compiled, "b")
            assert (plan.selected, plan.others) == (300, 1800)
            report = await replay_parked(broker, compiled, "b")
            assert (report.replayed, report.others, report.remaining) == (300, 1800, 1800)
            assert ids(await drained(connection, "b", 300)) == [f"m{n}" for n, each in enumerate(order) if each == "b"]
            left = await drained(connection, "shared.parking", 1800)
            assert ids(left) == [f"m{n}" for n, each in enumerate(order) if each == "a"]
            assert await depth(connection, "a") == 0

    asyncio.run(go())


@pytest.mark.one_broker
def test_what_does_not_say_where_it_failed_stays_parked_and_is_counted(vhost: BrokerAddress) -> None:
    """An error queue that services share which the file does not know: one of them is in the file."""
    compiled = topology({"sales": [1000]}, vhost=vhost.vhost, parking="error")
    strangers = [Properties(message_id=f"s{n}", headers={"rbs2-source-queue": "billing"}) for n in range(3)]

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, "error", strangers[0])
            await park(connection, compiled, [delivered("sales", message_id="mine")])
            await publish(connection, "error", *strangers[1:])
            for queue in (None, "sales"):
                plan = await plan_replay(broker, compiled, queue)
                assert (plan.selected, plan.unknown_origin, plan.others, plan.misplaced) == (1, 3, 0, 0)
            report = await replay_parked(broker, compiled)
            assert (report.replayed, report.unknown_origin, report.remaining) == (1, 3, 3)
            assert (report.complete, report.settled, report.stopped) == (False, True, None)
            assert ids(await drained(connection, "sales", 1)) == ["mine"]
            assert ids(await drained(connection, "error", 3)) == ["s0", "s1", "s2"]

    asyncio.run(go())


@pytest.mark.one_broker
def test_an_asserted_origin_brings_back_what_does_not_say_its_own_and_nothing_else(vhost: BrokerAddress) -> None:
    compiled = topology({"sales": [1000], "mail": [1000]}, vhost=vhost.vhost)
    elsewhere = {h.QUEUE: "billing", h.REASON: "parked"}

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, "sales.parking", Properties(message_id="silent"))
            await publish(connection, "sales.parking", Properties(message_id="theirs", headers=elsewhere))
            await publish(connection, "mail.parking", Properties(message_id="in-mail"))
            with pytest.raises(UsageError, match="origin 'sale' is not a work queue of the topology"):
                await replay_parked(broker, compiled, choice=ReplayRequest(origin="sale"))
            report = await replay_parked(broker, compiled, choice=ReplayRequest(origin="sales"))
            assert (report.replayed, report.unknown_origin, report.misplaced) == (1, 1, 1)
            assert ids(await drained(connection, "sales", 1)) == ["silent"]
            assert (await depth(connection, "sales"), await depth(connection, "mail")) == (0, 0)
            to = Destination(exchange="", routing_key="mail", queue="mail", label="mail")
            everything = await replay_parked(broker, compiled, choice=ReplayRequest(to=to))
            assert (everything.replayed, everything.complete) == (2, True), "with a destination no origin is needed"

    asyncio.run(go())


@pytest.mark.parametrize("order", [["a", "b"], ["a", "b", "a", "b", "b"], ["b", "a"]])
def test_what_stays_goes_back_also_when_the_last_message_was_replayed(vhost: BrokerAddress, order: list[str]) -> None:
    compiled = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost, parking="shared.parking")

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(each, message_id=f"m{n}") for n, each in enumerate(order)])
            report = await replay_parked(broker, compiled, "b")
            assert (report.replayed, report.remaining, report.stopped) == (order.count("b"), order.count("a"), None)
            assert (report.complete, report.notes) == (True, [])
            left = await drained(connection, "shared.parking", order.count("a"))
            assert ids(left) == [f"m{n}" for n, each in enumerate(order) if each == "a"]

    asyncio.run(go())


def test_classic_parking_is_replayed_and_keeps_the_order_of_the_rest(vhost: BrokerAddress) -> None:
    compiled = classic_parking(shop(vhost))

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(100)])
            report = await replay_parked(broker, compiled, WORK, choice=ReplayRequest(limit=40))
            assert (report.replayed, report.remaining) == (40, 60)
            assert ids(await drained(connection, PARKING, 60)) == [f"m{n}" for n in range(40, 100)]

    asyncio.run(go())


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_a_part_of_a_queue_that_several_channels_hold_is_replayed_and_the_rest_keeps_its_order(
    vhost: BrokerAddress, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqpflow.services.reading.reader.HELD_BY_A_CHANNEL", 300)
    monkeypatch.setattr("amqpflow.services.reading.reader.HELD_BY_A_CHANNEL_QUORUM", 300)
    monkeypatch.setattr("amqpflow.services.replaying.sending.WINDOW", 100)
    held: list[int] = []
    requeue_all = Requeueing.requeue_all

    async def watched(requeueing: Requeueing, *, is_part: bool) -> None:
        held.append(len(requeueing._consumers.holdings.all))
        await requeue_all(requeueing, is_part=is_part)

    monkeypatch.setattr(Requeueing, "requeue_all", watched)
    compiled = shop(vhost) if kind == "quorum" else classic_parking(shop(vhost))
    left = [f"m{n}" for n in range(1500)]

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in left])
            for end in "73":  # the second time all was given back before
                report = await replay_parked(
                    broker, compiled, WORK, choice=ReplayRequest(select=partial(ends_with, end))
                )
                left[:] = [each for each in left if not each.endswith(end)]
                assert (report.replayed, report.complete, report.remaining) == (150, True, len(left))
            assert len(held) == 2
            assert min(held) > 2
            assert ids(await drained(connection, WORK, 300)) == [
                f"m{n}" for end in (7, 3) for n in range(1500) if n % 10 == end
            ]
            assert ids(await drained(connection, PARKING, len(left))) == left

    asyncio.run(go())


def test_a_plan_takes_nothing_and_its_replay_takes_what_it_told(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(10)])
            await park(connection, compiled, [delivered(WORK, message_id="k")])
            plan = await plan_replay(broker, compiled, WORK, choice=ReplayRequest(limit=10))
            assert (plan.selected, plan.groups) == (10, ((("parked", "ValueError"), 10),))
            assert await depth(connection, PARKING) == 11
            # the first is taken away, another comes: the replay takes neither it nor the eleventh
            await drained(connection, PARKING, 1)
            await park(connection, compiled, [delivered(WORK, message_id="later")])
            report = await replay_parked(broker, compiled, WORK, choice=ReplayRequest(only=plan.only))
            assert report.replayed == 9
            assert ids(await drained(connection, WORK, 9)) == [f"m{n}" for n in range(1, 10)]
            assert ids(await drained(connection, PARKING, 2)) == ["k", "later"]

    asyncio.run(go())


def test_messages_that_fail_again_during_the_replay_are_not_replayed_again(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(1000)])
            channel, parking = await connection.open_channel(), await connection.open_channel()
            again: set[asyncio.Task[None]] = set()

            async def park_again(delivery: Delivery) -> None:
                await parking.publish(parking_publish(compiled, delivery))
                channel.ack(delivery.delivery_tag)

            def take(delivery: Delivery) -> None:
                task = asyncio.create_task(park_again(delivery))
                again.add(task)
                task.add_done_callback(again.discard)

            await channel.consume(WORK, take, prefetch=50, on_cancel=lambda: None)
            report = await replay_parked(broker, compiled, WORK)
            assert report.replayed == 1000
            await depth_becomes(connection, PARKING, 1000)
            taken = await drained(connection, PARKING, 1000)
            assert sorted(ids(taken), key=str) == sorted((f"m{n}" for n in range(1000)), key=str)
            assert {(each.properties.headers or {})[h.HOP].split("/")[1] for each in taken} == {"1"}
            await channel.close()

    asyncio.run(go())


def test_what_comes_back_is_left_also_when_others_took_messages_meanwhile(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = shop(vhost)
    # something is left for the others
    for module in ("reader", "fetch_size"):
        monkeypatch.setattr(f"amqpflow.services.reading.{module}.MAX_PREFETCH", 200)
    monkeypatch.setattr("amqpflow.services.replaying.sending.WINDOW", 100)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(4000)])
            channel, parking = await connection.open_channel(), await connection.open_channel()
            tasks: list[asyncio.Task[object]] = []
            parked_again: list[str | None] = []
            others: list[Thread] = []

            async def park_again(delivery: Delivery) -> None:
                await parking.publish(parking_publish(compiled, delivery))
                channel.ack(delivery.delivery_tag)
                parked_again.append(delivery.properties.message_id)

            async def taken_by_others() -> None:
                async with await connect(vhost, name="amqpflow test") as theirs:
                    await drained(theirs, PARKING, 1500)

            def take_others(_: str, done: int, __: int) -> None:
                if done and not others:
                    # the replay waits for it: else it may have read all before they begin
                    others.append(Thread(target=lambda: asyncio.run(taken_by_others())))
                    others[0].start()
                    others[0].join()

            await channel.consume(
                WORK,
                lambda delivery: tasks.append(asyncio.create_task(park_again(delivery))),
                prefetch=50,
                on_cancel=lambda: None,
            )
            # so many fewer are there than when it began that it comes to those that were parked again
            choice = ReplayRequest(rate=2000)
            report = await replay_parked(
                broker, compiled, WORK, choice=choice, options=ReadOptions(on_progress=take_others)
            )
            assert report.came_back > 0
            await depth_becomes(connection, WORK, 0)
            await until(lambda: len(parked_again) >= report.replayed)
            await asyncio.gather(*tasks)
            assert sorted(map(str, parked_again)) == sorted(set(map(str, parked_again)))
            assert len(parked_again) == report.replayed
            await channel.close()

    asyncio.run(go())


def test_two_replays_at_once_send_each_message_once(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection), workplace(vhost, compiled) as (second, _):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(2000)])
            reports = await asyncio.gather(replay_parked(broker, compiled, WORK), replay_parked(second, compiled, WORK))
            assert sum(report.replayed for report in reports) == 2000
            assert all(report.complete for report in reports)
            assert len(set(ids(await drained(connection, WORK, 2000)))) == 2000
            assert await depth(connection, WORK) == 0

    asyncio.run(go())


def test_a_full_work_queue_leaves_the_rest_parked_in_order(vhost: BrokerAddress, monkeypatch: Any) -> None:
    monkeypatch.setattr("amqpflow.services.replaying.sending.PATIENCE", 0.3)
    compiled = shop(vhost, queue_type="classic", arguments={"x-max-length": 5, "x-overflow": "reject-publish"})

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(1000)])
            report = await replay_parked(broker, compiled, WORK)
            assert report.replayed == 5
            assert not report.complete
            assert report.failed > 0
            assert report.in_doubt == 0
            assert report.stopped is not None
            assert "accepts no more messages" in report.stopped
            assert report.remaining == 995
            assert ids(await drained(connection, WORK, 5)) == [f"m{n}" for n in range(5)]
            assert ids(await drained(connection, PARKING, 995)) == [f"m{n}" for n in range(5, 1000)]

    asyncio.run(go())


def test_a_work_queue_that_is_full_for_a_moment_is_waited_for(vhost: BrokerAddress) -> None:
    compiled = shop(vhost, queue_type="classic", arguments={"x-max-length": 20, "x-overflow": "reject-publish"})

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(500)])
            channel = await connection.open_channel()
            taken: list[str | None] = []

            def take(delivery: Delivery) -> None:
                taken.append(delivery.properties.message_id)
                channel.ack(delivery.delivery_tag)

            await channel.consume(WORK, take, prefetch=10, on_cancel=lambda: None)
            report = await replay_parked(broker, compiled, WORK)
            assert (report.replayed, report.complete) == (500, True)
            await until(lambda: len(set(taken)) == 500)  # the last ones may be on their way
            await depth_becomes(connection, WORK, 0)
            await channel.close()

    asyncio.run(go())


def test_a_missing_work_queue_is_refused_before_anything_is_done(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK)])
            channel = await connection.admin_channel()
            await channel.queue_delete(WORK)
            with pytest.raises(NotAppliedError, match="queue orders is missing") as caught:
                await replay_parked(broker, compiled, WORK)
            assert caught.value.hint == "amqpflow apply shop.yaml"
            assert await depth(connection, PARKING) == 1

    asyncio.run(go())


@pytest.mark.parametrize("missing", ["binding", "exchange-meanwhile"])
def test_a_way_back_that_is_missing_leaves_everything_parked_and_names_the_command(
    vhost: BrokerAddress, broker: BrokerUnderTest, missing: str
) -> None:
    compiled = shop(vhost)

    def step(name: str) -> None:
        if name == "publish.before" and missing == "exchange-meanwhile":
            broker.management.delete("exchanges", vhost.vhost, "shop.retry")

    async def go() -> None:
        async with workplace(vhost, compiled) as (opened, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(1000)])
            if missing == "binding":
                channel = await connection.admin_channel()
                await channel.queue_unbind(WORK, "shop.retry", WORK)
            report = await replay_parked(opened, compiled, WORK, on_step=step)
            assert report.replayed == 0
            assert not report.complete
            assert report.hint == "amqpflow apply shop.yaml"
            assert report.stopped is not None
            assert "shop.retry cannot route to orders" in report.stopped
            assert ids(await drained(connection, PARKING, 1000)) == [f"m{n}" for n in range(1000)]

    asyncio.run(go())


@pytest.mark.parametrize("ramp", [(), (2,)])
def test_a_message_that_cannot_be_published_stays_and_the_others_go(
    vhost: BrokerAddress, ramp: tuple[int, ...]
) -> None:
    compiled = shop(vhost)
    big = Properties(message_id="big", delivery_mode=2, headers={h.QUEUE: WORK, "theirs": ""})

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id="m0")])
            room = connection.frame_max - len(encode_content_header(big, 2)) - 8
            await publish(connection, PARKING, replace(big, headers={h.QUEUE: WORK, "theirs": "x" * room}))
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in (1, 2)])
            choice = ReplayRequest(ramp=ramp, ramp_wait=0.1)
            report = await replay_parked(broker, compiled, WORK, choice=choice)
            assert (report.replayed, report.failed, report.in_doubt) == (3, 1, 0)
            assert [each.message_id for each in report.left_behind] == ["big"]
            assert "no room" in report.left_behind[0].why
            assert ids(await drained(connection, PARKING, 1)) == ["big"]

    asyncio.run(go())


def test_an_interrupted_replay_settles_what_is_in_flight_and_gives_back_the_rest(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "WINDOW", 400)  # so that there is something left when it is told to stop
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(2000)])
            stop = asyncio.Event()
            options = ReadOptions(stop=stop, on_progress=lambda _, done, __: stop.set() if done > 300 else None)
            report = await replay_parked(broker, compiled, WORK, options=options)
            assert report.interrupted
            assert 300 < report.replayed < 2000
            assert (report.failed, report.in_doubt) == (0, 0)
            gone = ids(await drained(connection, WORK, report.replayed))
            assert gone == [f"m{n}" for n in range(report.replayed)]
            left = ids(await drained(connection, PARKING, 2000 - report.replayed))
            assert left == [f"m{n}" for n in range(report.replayed, 2000)]

    asyncio.run(go())


def test_a_topology_that_was_never_applied_and_a_queue_that_is_not_in_the_file(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, replace(compiled, desired=BrokerState())) as (broker, _):
            with pytest.raises(NotAppliedError):
                await replay_parked(broker, compiled, WORK)
            with pytest.raises(UsageError) as unknown:
                await replay_parked(broker, compiled, "order")
            assert unknown.value.hint == "did you mean orders?"
            with pytest.raises(UsageError, match="is a parking queue") as parking:
                await replay_parked(broker, compiled, PARKING)
            assert parking.value.hint == "it holds messages of orders"

    asyncio.run(go())


def test_a_user_without_write_permission_is_told_at_once(
    vhost: BrokerAddress, broker: BrokerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PATIENCE", 60.0)
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (opened, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(3)])
            rights = {"configure": ".*", "write": "^orders", "read": ".*"}
            broker.management.put("permissions", vhost.vhost, broker.address.user, body=rights)
            report = await replay_parked(opened, compiled, WORK)
            assert report.stopped is not None
            assert "no permission to publish to exchange 'shop.retry'" in report.stopped
            assert report.seconds < 30
            assert await depth(connection, PARKING) == 3

    asyncio.run(go())


def test_without_a_confirm_in_time_messages_stay_parked_and_are_in_doubt(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqpflow.services.replaying.sending.CONFIRM_TIMEOUT", 0)
    compiled = shop(vhost)

    async def go() -> None:
        async with (
            Proxy(vhost, heartbeat=None) as network,
            workplace(network.address, compiled) as (broker, connection),
        ):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(50)])

            def hold_confirms_back(step: str) -> None:
                if step == "publish.before":
                    network.to_client.clear()
                elif step == "requeue.before":
                    network.to_client.set()

            report = await replay_parked(broker, compiled, WORK, on_step=hold_confirms_back)
            assert (report.replayed, report.complete, report.remaining) == (0, False, 50)
            assert report.in_doubt > 0
            assert report.stopped is not None
            assert "no confirm" in report.stopped
            assert ids(await drained(connection, PARKING, 50)) == [f"m{n}" for n in range(50)]

    asyncio.run(go())


def test_nothing_is_held_for_long_and_the_replay_goes_on(vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amqpflow.services.reading.reader.HOLD_MAX", 1.2)
    compiled = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost, parking="shared.parking")
    steps: list[str] = []

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            order = ["a", "b"] * 200 + ["b"] * 400
            await park(connection, compiled, [delivered(each, message_id=f"m{n}") for n, each in enumerate(order)])
            report = await replay_parked(broker, compiled, "b", choice=ReplayRequest(rate=200), on_step=steps.append)
            assert (report.replayed, report.complete, report.stopped) == (600, True, None)
            assert (report.others, report.remaining) == (200, 200)
            assert steps.count("requeue.after") > 2
            taken = ids(await drained(connection, "b", 600))
            assert taken == [f"m{n}" for n, each in enumerate(order) if each == "b"]
            left = ids(await drained(connection, "shared.parking", 200))
            assert left == [f"m{n}" for n, each in enumerate(order) if each == "a"]

    asyncio.run(go())


def test_a_replay_that_comes_to_nothing_within_the_time_of_holding_says_so(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqpflow.services.reading.reader.HOLD_MAX", 0)
    compiled = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost, parking="shared.parking")

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(each) for each in "aab"])
            report = await replay_parked(broker, compiled, "b")
            assert (report.replayed, report.stopped) == (0, "messages had been held for 0 minutes")
            assert (report.hint, report.remaining) == ("replay again to continue", 3)

    asyncio.run(go())


def test_a_plan_reads_on_when_messages_were_held_for_as_long_as_may_be(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqpflow.services.reading.reader.HOLD_MAX", 1.5)
    compiled, openings = shop(vhost), 0
    enter = ParkingReader.__aenter__

    async def counted(reader: ParkingReader) -> ParkingReader:
        nonlocal openings
        openings += 1
        return await enter(reader)

    monkeypatch.setattr(ParkingReader, "__aenter__", counted)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(60)])
            slow = ReadOptions(on_progress=lambda *_: time.sleep(0.05))
            plan = await plan_replay(broker, compiled, WORK, options=slow)
            assert (plan.selected, plan.complete, plan.ended_early) == (60, True, None)
            assert openings > 1
            assert ids(await drained(connection, PARKING, 60)) == [f"m{n}" for n in range(60)]

    asyncio.run(go())


@pytest.fixture
def operator(vhost: BrokerAddress, broker: BrokerUnderTest) -> Iterator[BrokerAddress]:
    """A user who may do what replaying takes and no more."""
    name = f"operator-{uuid4().hex[:8]}"
    management = broker.management
    management.put("users", name, body={"password": "secret", "tags": "management"})
    rights = {"configure": r"^orders\.parking\.reading$", "write": r"^shop\.retry$", "read": r"^orders\.parking$"}
    management.put("permissions", vhost.vhost, name, body=rights)
    try:
        yield replace(vhost, url=vhost.url.replace(f"{vhost.user}:{vhost.password}@", f"{name}:secret@"))
    finally:
        management.delete("users", name)


@pytest.mark.parametrize("lock", [True, False])
def test_little_is_needed_to_replay(
    vhost: BrokerAddress, broker: BrokerUnderTest, operator: BrokerAddress, lock: bool
) -> None:
    compiled = shop(vhost)
    if not lock:
        rights = {"configure": "^$", "write": r"^shop\.retry$", "read": r"^orders\.parking$"}
        broker.management.put("permissions", vhost.vhost, operator.user, body=rights)

    async def go() -> None:
        async with workplace(vhost, compiled) as (_, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(3)])
            async with open_broker(operator) as opened:
                report = await replay_parked(opened, compiled, WORK, choice=ReplayRequest(limit=2))
                assert (report.replayed, report.remaining) == (2, 1)
                assert any("no permission to lock" in note for note in report.notes) is not lock
            async with open_broker(operator, use_management=False) as opened:
                with pytest.raises(RefusedError, match="cannot verify that reading"):
                    await replay_parked(opened, compiled, WORK)
                report = await replay_parked(opened, compiled, WORK, options=ReadOptions(unverified=True))
                assert report.replayed == 1
                assert any("was not verified" in note for note in report.notes)

    asyncio.run(go())


def test_messages_that_are_equal_in_everything_get_hops_of_their_own(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            channel = await connection.admin_channel()
            for _ in range(3):
                await publish_raw(channel, PARKING, 0, b"")
            await depth_becomes(connection, PARKING, 3)
            report = await replay_parked(broker, compiled, WORK, choice=ReplayRequest(origin=WORK))
            assert (report.replayed, report.groups) == (3, {("unknown", ""): 3})
            assert len({(each.properties.headers or {})[h.HOP] for each in await drained(connection, WORK, 3)}) == 3

    asyncio.run(go())
