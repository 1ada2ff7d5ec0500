"""Reading a parking queue changes neither its size nor its order, and loses nothing."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from amqpflow.errors import AmqpflowError, BrokerError, NotAppliedError, RefusedError, UsageError
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties
from amqpflow.model.resources import BrokerState
from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.observe import Broker
from amqpflow.services.reading.consumers import QueueConsumers
from amqpflow.services.reading.reader import ParkingReader
from tests.brokers.selection import BrokerUnderTest
from tests.parked import (
    delivered,
    deliveries,
    depth,
    depth_becomes,
    drained,
    find_parked,
    list_parked,
    park,
    parked_by_broker,
    publish,
    workplace,
)
from tests.topologies import topology
from tests.waiting import until

WORK = "orders"
PARKING = "orders.parking"


def shop(vhost: BrokerAddress, **options: object) -> CompiledTopology:
    return topology({WORK: [1000]}, vhost=vhost.vhost, **options)  # type: ignore[arg-type]


def classic_parking(compiled: CompiledTopology) -> CompiledTopology:
    queue = compiled.desired.queues[PARKING]
    arguments = {key: value for key, value in queue.arguments.items() if key != "x-delivery-limit"}
    queues = {**compiled.desired.queues, PARKING: replace(queue, arguments={**arguments, "x-queue-type": "classic"})}
    return replace(compiled, desired=replace(compiled.desired, queues=queues))


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_thirty_lists_change_neither_size_nor_order(vhost: BrokerAddress, kind: str) -> None:
    compiled = shop(vhost, delivery_limit=2)
    if kind == "classic":
        compiled = classic_parking(compiled)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(5)])
            await parked_by_broker(connection, compiled, WORK, "from-the-broker")
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(5, 10)])
            expected = [f"m{n}" for n in range(5)] + ["from-the-broker"] + [f"m{n}" for n in range(5, 10)]
            for _ in range(30):
                listing = await list_parked(broker, compiled)
                assert [row.message_id for row in listing.messages] == expected
                assert listing.complete
                assert await depth(connection, PARKING) == 11
            assert [row.reason for row in listing.messages if row.message_id == "from-the-broker"] == ["broker"]
            assert [row.detail for row in listing.messages if row.message_id == "from-the-broker"] == ["delivery_limit"]
            taken = await drained(connection, PARKING, 11)
            assert [each.properties.message_id for each in taken] == expected

    asyncio.run(go())


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_the_order_of_many_messages_survives_several_consumers_of_one_reading(vhost: BrokerAddress, kind: str) -> None:
    compiled = shop(vhost) if kind == "quorum" else classic_parking(shop(vhost))
    expected = [f"m{n}" for n in range(7000)]

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, PARKING, *(Properties(message_id=each) for each in expected))
            for _ in range(3):
                listing = await list_parked(broker, compiled)
                assert [row.message_id for row in listing.messages] == expected
                assert await depth(connection, PARKING) == 7000
            taken = await drained(connection, PARKING, 7000)
            assert [each.properties.message_id for each in taken] == expected

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_reading_spends_no_memory_on_messages_that_were_looked_at(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = shop(vhost)
    waiting: list[int] = []
    take = QueueConsumers._take

    def watched(consumers: QueueConsumers, delivery: Delivery) -> None:
        take(consumers, delivery)
        waiting.append(len(consumers.arrived))

    monkeypatch.setattr(QueueConsumers, "_take", watched)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            many = (Properties(message_id=f"m{n}") for n in range(12_000))
            await publish(connection, PARKING, *many, body=bytes(500))
            seen = 0
            async with ParkingReader(broker.connection, PARKING, quorum=True) as reader:
                async for delivery in deliveries(reader, at_most=12_000):
                    reader.keep(delivery)
                    seen += 1
                (holding,) = reader._consumers.holdings
                assert len(holding.channel._acks._unsettled) == 0
            assert seen == 12_000
            assert len(holding.tags.consumers) == 2
            # neither while a consumer is going nor when another takes its place does more wait than one look at the
            # socket brings
            assert max(waiting) < 1500

    asyncio.run(go())


@pytest.mark.parametrize("limit", [1, 700, 4500])
def test_a_part_that_is_read_after_everything_was_given_back_once_stays_in_front(
    vhost: BrokerAddress, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so that several consumers are needed
    monkeypatch.setattr("amqpflow.services.reading.fetch_size.AT_ONCE_UNKNOWN", 1000)
    monkeypatch.setattr("amqpflow.services.reading.fetch_size.AT_ONCE_BYTES", 60_000)
    compiled = shop(vhost)
    old, new = [f"m{n}" for n in range(5000)], [f"n{n}" for n in range(100)]

    def stop_at(stop: asyncio.Event, _: str, seen: int, __: int) -> None:
        if seen == limit:
            stop.set()

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, PARKING, *(Properties(message_id=each) for each in old))
            await list_parked(broker, compiled)
            await publish(connection, PARKING, *(Properties(message_id=each) for each in new))
            for _ in range(2):
                listing = await list_parked(broker, compiled, limit=limit)
                assert [row.message_id for row in listing.messages] == old[:limit]
                assert await depth(connection, PARKING) == 5100
                stop = asyncio.Event()
                await list_parked(broker, compiled, stop=stop, on_progress=partial(stop_at, stop))
            taken = await drained(connection, PARKING, 5100)
            assert [each.properties.message_id for each in taken] == old + new

    asyncio.run(go())


@pytest.mark.parametrize(("count", "size"), [(10_000, 1_000), (10_000, 10_000)])
def test_ordinary_messages_of_unknown_size_are_all_held_before_the_first_is_looked_at(
    vhost: BrokerAddress, count: int, size: int
) -> None:
    # a process that is killed then gives all of them back together, in their order (fact 6.9)
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled, management=False) as (broker, connection):
            for start in range(0, count, 1000):
                each = [delivered(WORK, message_id=f"m{start + n}", body=bytes(size)) for n in range(1000)]
                await park(connection, compiled, each)
            await list_parked(broker, compiled)
            reader = ParkingReader(broker.connection, PARKING, quorum=True)
            async with reader, aclosing(deliveries(reader, at_most=count)) as arriving:
                first = await anext(arriving)
                assert await depth(connection, PARKING) == 0
                assert first.properties.message_id == "m0"
            assert reader.order_kept
            assert reader.ready_after == count

    asyncio.run(go())


def test_a_queue_that_shrinks_while_its_first_messages_are_measured_is_read_to_its_end(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqpflow.services.reading.fetch_size.AT_ONCE_UNKNOWN", 50)
    monkeypatch.setattr("amqpflow.services.reading.reader.MEASURED", 20)
    compiled = shop(vhost)
    look = QueueConsumers.look

    async def go() -> None:
        async with workplace(vhost, compiled, management=False) as (broker, connection):
            await publish(connection, PARKING, *(Properties(message_id=f"m{n}") for n in range(60)))

            async def taken_by_others(consumers: QueueConsumers) -> tuple[int, int]:
                answer = await look(consumers)
                monkeypatch.setattr(QueueConsumers, "look", look)
                await drained(connection, PARKING, 50)
                return answer

            monkeypatch.setattr(QueueConsumers, "look", taken_by_others)
            listing = await list_parked(broker, compiled)
            assert [row.message_id for row in listing.messages] == [f"m{n}" for n in range(50, 60)]
            assert listing.complete
            assert await depth(connection, PARKING) == 10

    asyncio.run(go())


async def has_statistics(broker: Broker, vhost: BrokerAddress, count: int) -> bool:
    assert broker.management is not None
    return (await broker.management.queue_statistics(vhost.vhost, PARKING) or {}).get("messages") == count


@pytest.mark.parametrize("management", [True, pytest.param(False, marks=pytest.mark.one_broker)])
def test_what_the_broker_reads_at_once_is_reckoned_with_headers(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch, management: bool
) -> None:
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)
    size, at_once, count = 100_000, 4_000_000, 300
    monkeypatch.setattr("amqpflow.services.reading.fetch_size.AT_ONCE_BYTES", at_once)
    monkeypatch.setattr("amqpflow.services.reading.fetch_size.AT_ONCE_UNKNOWN", 40)
    monkeypatch.setattr("amqpflow.services.reading.reader.MEASURED", 10)
    asked: list[int] = []
    consume = Channel.consume

    async def watched(self: Channel, *args: Any, prefetch: int, **kwargs: Any) -> str:
        asked.append(prefetch)
        return await consume(self, *args, prefetch=prefetch, **kwargs)

    async def go() -> None:
        async with workplace(vhost, compiled, management=management) as (broker, connection):
            large = {"x": "h" * size}
            for start in range(0, count, 50):
                each = (Properties(message_id=f"m{start + n}", headers=large) for n in range(50))
                await publish(connection, PARKING, *each)
            if management:
                await until(lambda: has_statistics(broker, vhost, count), timeout=30, every=0.2)
            monkeypatch.setattr(Channel, "consume", watched)
            listing = await list_parked(broker, compiled)
            assert [row.message_id for row in listing.messages] == [f"m{n}" for n in range(count)]
            assert listing.complete

    asyncio.run(go())
    assert max(asked) * size <= at_once
    assert len(asked) < 20


@pytest.mark.parametrize("count", [1, 3000])
@pytest.mark.parametrize("read_before", [0, 1000, 3000])
def test_a_count_of_zero_from_a_queue_without_a_leader_is_not_believed(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch, count: int, read_before: int
) -> None:
    # so does RabbitMQ count for a second after a restart, and for as long as most nodes of a queue are away (fact 6.15)
    compiled = shop(vhost)
    expected = [f"m{n}" for n in range(count)]
    look = QueueConsumers.look

    async def without_leader(_: QueueConsumers) -> tuple[int, int]:
        monkeypatch.setattr(QueueConsumers, "look", look)
        return 0, 0

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, PARKING, *(Properties(message_id=each) for each in expected[:read_before]))
            await list_parked(broker, compiled)
            await publish(connection, PARKING, *(Properties(message_id=each) for each in expected[read_before:]))
            for _ in range(2):
                monkeypatch.setattr(QueueConsumers, "look", without_leader)
                listing = await list_parked(broker, compiled)
                assert [row.message_id for row in listing.messages] == expected
                assert listing.complete
                assert listing.queues[0].ready == count
                assert await depth(connection, PARKING) == count
            taken = await drained(connection, PARKING, count)
            assert [each.properties.message_id for each in taken] == expected

    asyncio.run(go())


def test_an_empty_queue_with_a_single_active_consumer_is_read(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)
    queue = compiled.desired.queues[PARKING]
    single = replace(queue, arguments={**queue.arguments, "x-single-active-consumer": True})
    elsewhere = replace(
        compiled, desired=replace(compiled.desired, queues={**compiled.desired.queues, PARKING: single})
    )

    async def go() -> None:
        async with workplace(vhost, elsewhere) as (broker, _):
            # RabbitMQ refuses basic.get there
            async with ParkingReader(broker.connection, PARKING, quorum=True) as reader:
                assert [each async for each in deliveries(reader, at_most=reader.ready)] == []
            assert (reader.ready_after, reader.unproven) == (0, None)

    asyncio.run(go())


def test_a_limit_reads_the_oldest_and_no_more(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(20)])
            listing = await list_parked(broker, compiled, limit=3)
            assert [row.message_id for row in listing.messages] == ["m0", "m1", "m2"]
            assert [each.ready for each in listing.queues] == [20]
            taken = await drained(connection, PARKING, 20)
            assert [each.properties.message_id for each in taken] == [f"m{n}" for n in range(20)]

    asyncio.run(go())


def test_a_shared_parking_queue_is_listed_for_one_work_queue(vhost: BrokerAddress) -> None:
    compiled = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost, parking="shared.parking")

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            both = [delivered("ab"[n % 2], message_id=f"m{n}") for n in range(10)]
            await park(connection, compiled, both)
            listing = await list_parked(broker, compiled, queue="b", limit=2)
            assert [row.message_id for row in listing.messages] == ["m1", "m3"]
            listing = await list_parked(broker, compiled, queue="shared.parking")
            assert [(row.queue, row.message_id) for row in listing.messages] == [
                ("ab"[n % 2], f"m{n}") for n in range(10)
            ]
            taken = await drained(connection, "shared.parking", 10)
            assert [each.properties.message_id for each in taken] == [f"m{n}" for n in range(10)]

    asyncio.run(go())


def test_messages_that_are_parked_meanwhile_do_not_prolong_the_reading(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, PARKING, *(Properties(message_id=f"m{n}") for n in range(3000)))
            more = asyncio.create_task(
                publish(connection, PARKING, *(Properties(message_id=f"n{n}") for n in range(3000)))
            )
            listing = await list_parked(broker, compiled)
            await more
            # what had arrived when the reading began is read, and not one message twice
            ids = [row.message_id for row in listing.messages]
            assert 3000 <= len(ids) == len(set(ids)) == listing.queues[0].ready
            await depth_becomes(connection, PARKING, 6000)

    asyncio.run(go())


def test_a_consumer_of_somebody_else_is_told_of_and_nothing_hangs(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, PARKING, *(Properties(message_id=f"m{n}") for n in range(100)))
            channel = await connection.open_channel()
            seen: list[int] = []
            forty = asyncio.Event()

            def take(delivery: object) -> None:
                seen.append(1)
                if len(seen) == 40:
                    forty.set()

            await channel.consume(PARKING, take, prefetch=40, on_cancel=lambda: None)
            await forty.wait()
            listing = await list_parked(broker, compiled)
            assert len(listing.messages) == 60
            assert listing.queues[0].other_consumers == 1
            assert any("other consumers" in note for note in listing.notes)
            await channel.close()
            await depth_becomes(connection, PARKING, 100)

    asyncio.run(go())


def test_a_consumer_that_takes_messages_while_they_are_read_neither_hangs_nor_miscounts(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, PARKING, *(Properties(message_id=f"m{n}") for n in range(4000)))
            channel = await connection.open_channel()
            taken: list[str | None] = []

            def take(delivery: object) -> None:
                taken.append(delivery.properties.message_id)  # type: ignore[attr-defined]
                channel.ack(delivery.delivery_tag)  # type: ignore[attr-defined]

            reading = asyncio.create_task(list_parked(broker, compiled))
            tag = await channel.consume(PARKING, take, prefetch=10, on_cancel=lambda: None)
            listing = await reading
            await channel.cancel(tag)
            ids = [row.message_id for row in listing.messages]
            assert len(ids) == len(set(ids))
            await channel.close()
            await depth_becomes(connection, PARKING, 4000 - len(taken))
            left = await drained(connection, PARKING, 4000 - len(taken))
            assert {each.properties.message_id for each in left} | set(taken) == {f"m{n}" for n in range(4000)}

    asyncio.run(go())


def test_two_readings_at_once_wait_for_one_another(vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = shop(vhost)
    waited: list[str] = []
    enter = ParkingReader.__aenter__

    async def once_the_other_waits(reader: ParkingReader) -> ParkingReader:
        await until(lambda: waited)  # else one may be done before the other has asked
        return await enter(reader)

    monkeypatch.setattr(ParkingReader, "__aenter__", once_the_other_waits)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection), workplace(vhost, compiled) as (second, _):
            await publish(connection, PARKING, *(Properties(message_id=f"m{n}") for n in range(3000)))
            listings = await asyncio.gather(
                list_parked(broker, compiled, on_wait=waited.append),
                list_parked(second, compiled, on_wait=waited.append),
            )
            for listing in listings:
                assert [row.message_id for row in listing.messages] == [f"m{n}" for n in range(3000)]
            assert waited == [PARKING]
            taken = await drained(connection, PARKING, 3000)
            assert [each.properties.message_id for each in taken] == [f"m{n}" for n in range(3000)]

    asyncio.run(go())


def test_an_interrupted_reading_gives_everything_back(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, PARKING, *(Properties(message_id=f"m{n}") for n in range(3000)))
            stop = asyncio.Event()
            listing = await list_parked(
                broker, compiled, stop=stop, on_progress=lambda _, seen, __: stop.set() if seen > 1000 else None
            )
            assert not listing.complete
            assert listing.queues[0].ended_early == "it was interrupted"
            assert await depth(connection, PARKING) == 3000
            taken = await drained(connection, PARKING, 3000)
            assert [each.properties.message_id for each in taken] == [f"m{n}" for n in range(3000)]

    asyncio.run(go())


def test_nothing_is_held_for_ever_and_a_listing_says_how_far_it_got(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqpflow.services.reading.reader.HOLD_MAX", 0)
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, PARKING, *(Properties(message_id=f"m{n}") for n in range(100)))
            listing = await list_parked(broker, compiled)
            assert not listing.complete
            assert listing.queues[0].ended_early == "messages had been held for 0 minutes"
            assert len(listing.messages) == listing.queues[0].read < 100
            assert await depth(connection, PARKING) == 100

    asyncio.run(go())


def test_a_queue_that_is_deleted_while_it_is_read_is_an_error_and_no_hang(
    vhost: BrokerAddress, broker: BrokerUnderTest
) -> None:
    compiled = shop(vhost)
    deleted: list[str] = []

    def delete(queue: str, seen: int, _: int) -> None:
        if seen >= 1000 and not deleted:
            broker.management.delete("queues", vhost.vhost, queue)
            deleted.append(queue)

    async def go() -> None:
        async with workplace(vhost, compiled) as (opened, connection):
            await publish(connection, PARKING, *(Properties(message_id=f"m{n}") for n in range(5000)))
            with pytest.raises(AmqpflowError, match=r"orders\.parking"):
                await list_parked(opened, compiled, on_progress=delete)

    asyncio.run(go())
    assert deleted == [PARKING]


@pytest.mark.parametrize("management", [True, False], ids=["management", "amqp-alone"])
def test_a_parking_queue_with_the_default_delivery_limit_is_not_read(
    vhost: BrokerAddress, broker: BrokerUnderTest, management: bool
) -> None:
    compiled = shop(vhost)
    queue = compiled.desired.queues[PARKING]
    queues = {**compiled.desired.queues, PARKING: replace(queue, arguments={"x-queue-type": "quorum"})}
    elsewhere = replace(compiled, desired=replace(compiled.desired, queues=queues))

    async def go() -> None:
        async with workplace(vhost, elsewhere, management=management) as (opened, connection):
            await publish(connection, PARKING, Properties(message_id="m"))
            if broker.version >= (4,):
                with pytest.raises(RefusedError, match="default delivery limit of 20"):
                    await list_parked(opened, compiled)
            else:
                # RabbitMQ 3 has no limit of its own: nothing is lost, and closing the channel keeps the order
                await list_parked(opened, compiled)
            assert await depth(connection, PARKING) == 1

    asyncio.run(go())


@pytest.mark.parametrize("management", [True, False], ids=["management", "amqp-alone"])
def test_a_lower_delivery_limit_is_refused(vhost: BrokerAddress, management: bool) -> None:
    compiled = shop(vhost)
    queue = compiled.desired.queues[PARKING]
    lower = replace(queue, arguments={**queue.arguments, "x-delivery-limit": 5})
    elsewhere = replace(compiled, desired=replace(compiled.desired, queues={**compiled.desired.queues, PARKING: lower}))

    async def go() -> None:
        async with workplace(vhost, elsewhere, management=management) as (opened, _):
            with pytest.raises(RefusedError, match="argument x-delivery-limit limits it to 5 deliveries"):
                await list_parked(opened, compiled)

    asyncio.run(go())


@pytest.mark.parametrize("kind", ["policies", "operator-policies"])
def test_a_policy_that_lowers_the_delivery_limit_is_refused(
    vhost: BrokerAddress, broker: BrokerUnderTest, kind: str
) -> None:
    compiled = shop(vhost)
    body = {"pattern": "parking$", "definition": {"delivery-limit": 3}, "apply-to": "queues", "priority": 5}
    broker.management.put("policies", vhost.vhost, "theirs", body=body)

    async def go() -> None:
        async with workplace(vhost, compiled) as (opened, connection):
            await publish(connection, PARKING, Properties(message_id="m"))
            with pytest.raises(RefusedError, match="policy theirs limits it to 3 deliveries"):
                await list_parked(opened, compiled)
            assert await depth(connection, PARKING) == 1

    asyncio.run(go())


@pytest.mark.releases("<4")  # RabbitMQ 4 passes this policy over on a classic queue
def test_a_length_limit_beside_a_key_that_only_rabbitmq_3_knows_is_refused(
    vhost: BrokerAddress, broker: BrokerUnderTest
) -> None:
    compiled = classic_parking(shop(vhost))
    definition = {"max-length": 3, "max-in-memory-length": 1}
    body = {"pattern": "parking$", "definition": definition, "apply-to": "queues", "priority": 5}

    async def go() -> None:
        async with workplace(vhost, compiled) as (opened, connection):
            broker.management.put("policies", vhost.vhost, "theirs", body=body)
            await publish(connection, PARKING, *(Properties(message_id=f"m{number}") for number in range(3)))
            with pytest.raises(RefusedError, match="policy theirs limit it to 3 messages"):
                await list_parked(opened, compiled)

    asyncio.run(go())


def test_over_amqp_alone_a_listing_says_that_policies_are_not_seen(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled, management=False) as (opened, connection):
            await park(connection, compiled, [delivered(WORK)])
            listing = await list_parked(opened, compiled)
            assert len(listing.messages) == 1
            assert any("policies cannot be seen" in note for note in listing.notes)

    asyncio.run(go())


@pytest.mark.parametrize("management", [True, False], ids=["management", "amqp-alone"])
def test_a_missing_parking_queue_names_the_command_that_mends_it(vhost: BrokerAddress, management: bool) -> None:
    compiled = shop(vhost)
    nothing = replace(compiled, desired=BrokerState())

    async def go() -> None:
        async with workplace(vhost, nothing, management=management) as (opened, _):
            with pytest.raises(NotAppliedError, match=PARKING) as caught:
                await list_parked(opened, compiled)
            assert caught.value.hint == "amqpflow apply shop.yaml"
            with pytest.raises(UsageError, match="no queue ordes") as unknown:
                await list_parked(opened, compiled, queue="ordes")
            assert unknown.value.hint == "did you mean orders?"

    asyncio.run(go())


def test_a_message_is_found_by_id_by_its_beginning_by_message_id_and_by_hop(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m-{n}", body=b"%d" % n) for n in range(50)])
            listing = await list_parked(broker, compiled)
            wanted = listing.messages[17]
            for key in (wanted.id, wanted.id[:8], "m-17", "m-17/0/1"):
                (found,) = await find_parked(broker, compiled, key)
                assert found.delivery.body == b"17"
                assert found.error_type == "ValueError"
            assert await find_parked(broker, compiled, "m-99") == ()
            assert await find_parked(broker, compiled, wanted.id[:3]) == ()
            assert await depth(connection, PARKING) == 50

    asyncio.run(go())


@pytest.mark.releases(">=4")
def test_nothing_is_held_for_longer_than_half_the_consumer_timeout(
    vhost: BrokerAddress, broker: BrokerUnderTest
) -> None:
    compiled = shop(vhost)
    body = {"pattern": "parking$", "apply-to": "queues", "definition": {"consumer-timeout": 4000}, "priority": 1}
    broker.management.put("policies", vhost.vhost, "theirs", body=body)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(5)])
            listing = await list_parked(broker, compiled, on_progress=lambda *_: time.sleep(1.1))
            (reading,) = listing.queues
            # given back after every other message, and read again from the head: what was seen is known
            assert (reading.read, reading.complete) == (5, True)
            assert [row.message_id for row in listing.messages] == [f"m{n}" for n in range(5)]
            assert listing.notes == ()
            taken = await drained(connection, PARKING, 5)
            assert [each.properties.message_id for each in taken] == [f"m{n}" for n in range(5)]

    asyncio.run(go())


@pytest.mark.releases(">=4.3")
def test_after_the_server_cancelled_the_consumer_nothing_is_acked(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)
    queue = compiled.desired.queues[PARKING]
    short = replace(queue, arguments={**queue.arguments, "x-consumer-timeout": 2000})
    compiled = replace(compiled, desired=replace(compiled.desired, queues={**compiled.desired.queues, PARKING: short}))

    async def go() -> None:
        async with workplace(vhost, compiled) as (_, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(3)])
            taken: list[Delivery] = []

            async def take(reader: ParkingReader) -> None:
                taken.extend([each async for each in deliveries(reader, at_most=3)])
                await anext(deliveries(reader, at_most=1, busy=lambda: True))

            async with ParkingReader(connection, PARKING, quorum=True) as reader:
                with pytest.raises(BrokerError, match="RabbitMQ cancelled the reading"):
                    await take(reader)
                assert [reader.ack_all([each.delivery_tag]) for each in taken] == [False] * 3
            assert "RabbitMQ cancelled the reading" in str(reader.unproven)
            await depth_becomes(connection, PARKING, 3)

    asyncio.run(go())
