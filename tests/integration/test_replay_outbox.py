"""What a replay publishes: each copy is found in one list, once, whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.parking.parked import read_parked
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.services.replaying.outbox import PendingReplay, ReplayOutbox
from tests.integration.test_channel import CLASSIC, opened, read
from tests.parked import delivered
from tests.waiting import until

FULL = {**CLASSIC, "x-max-length": 0, "x-overflow": "reject-publish"}


def flight(number: int, queue: str, *, exchange: str = "") -> PendingReplay:
    copy = Publish.of(
        exchange=exchange, routing_key=queue, properties=Properties(message_id="m", delivery_mode=2), body=b""
    )
    return PendingReplay(number=number, parked=read_parked(delivered("orders"), {}), copy=copy, key=("m", str(number)))


@asynccontextmanager
async def outbox(address: BrokerAddress) -> AsyncIterator[tuple[ReplayOutbox, list[Connection]]]:
    connections: list[Connection] = []

    async def publishing() -> Connection:
        connections.append(await connect(address, name="amqpflow test publishing"))
        return connections[-1]

    box = ReplayOutbox(publishing, asyncio.Event())
    await box.open()
    try:
        yield box, connections
    finally:
        await box.close()


def numbers(flights: list[PendingReplay]) -> list[int]:
    return sorted(each.number for each in flights)


def failures(box: ReplayOutbox) -> dict[int, str]:
    return {flight.number: type(error).__name__ for flight, error in box.failed}


def test_copies_with_one_id_are_told_apart_by_their_address(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC, full=FULL) as (connection, _), outbox(vhost) as (box, _):
            await box.send([flight(1, "here"), flight(2, "nowhere"), flight(3, "full")])
            await until(lambda: not box.outstanding)
            assert numbers(box.confirmed) == [1]
            assert failures(box) == {2: "UnroutableError", 3: "PublishRefusedError"}
            assert len(await read(connection, "here", 1)) == 1

    asyncio.run(scenario())


def test_a_confirm_that_comes_after_it_was_given_up_is_not_heard(vhost: BrokerAddress) -> None:
    """The message was left as in doubt: were it acked after all, it would be counted twice."""

    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC) as (_, look), outbox(vhost) as (box, _):
            sending = asyncio.ensure_future(box.send([flight(1, "here")]))
            await until(lambda: box.outstanding, every=0)  # it is posted, and the confirm cannot be there yet
            assert numbers(box.give_up(asyncio.get_running_loop().time())) == [1]
            await sending
            assert not box.is_outstanding(("", "here", "m"))

            async def ready() -> int:
                return (await look.queue_counts("here")).ready

            await until(ready)
            await box.send([flight(2, "here")])
            await until(lambda: not box.outstanding)
            assert numbers(box.confirmed) == [2]

    asyncio.run(scenario())


def test_only_what_has_waited_so_long_is_given_up(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC), outbox(vhost) as (box, _):
            sending = asyncio.ensure_future(box.send([flight(1, "here")]))
            await until(lambda: box.outstanding, every=0)
            assert box.give_up(asyncio.get_running_loop().time() - 1) == []
            await sending
            await until(lambda: numbers(box.confirmed) == [1])

    asyncio.run(scenario())


def test_a_publish_that_closes_the_channel_fails_alone(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC), outbox(vhost) as (box, connections):
            await box.send([flight(1, "x", exchange="missing"), flight(2, "here")])
            await until(lambda: not box.outstanding)
            assert (failures(box), numbers(box.confirmed)) == ({1: "UnroutableError"}, [2])
            assert not any(each.is_uncertain for each, _ in box.failed)
            box.failed.clear()
            await box.send([flight(3, "here")])
            await until(lambda: numbers(box.confirmed) == [2, 3])
            assert len(connections) == 1

    asyncio.run(scenario())


def test_what_was_on_its_way_when_the_connection_was_lost_is_uncertain(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC), outbox(vhost) as (box, connections):
            sending = asyncio.ensure_future(box.send([flight(1, "here")]))
            await until(lambda: box.outstanding, every=0)
            connections[0]._pika.content.abort()
            await sending
            await until(lambda: not box.outstanding)
            assert failures(box) == {1: "PublishUncertainError"}
            assert box.failed[0][0].is_uncertain
            await box.send([flight(2, "here")])
            await until(lambda: numbers(box.confirmed) == [2])

    asyncio.run(scenario())
