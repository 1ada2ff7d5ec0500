"""Whoever asks the broker something may be cancelled at any moment, and the channel keeps what it holds."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from amqpflow import Publisher
from amqpflow.errors import BrokerUnavailableError
from amqpflow.model.message import Delivery
from amqpflow.rabbitmq import rpc
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.rabbitmq.translate import translate
from amqpflow.services.reading.reader import ParkingReader
from amqpflow.services.replaying import queue_pass, reparked, replayer, sending
from amqpflow.services.replaying.request import ReplayRequest
from tests.faults.proxy import Proxy
from tests.integration.test_channel import QUORUM, message, opened
from tests.parked import delivered, deliveries, depth, depth_becomes, drained, park, workplace
from tests.shop import Shop, shop
from tests.topologies import topology
from tests.waiting import until

T = TypeVar("T")
TURNS = 8  #: of the event loop: from before a call is sent until after its answer


async def cancelled_after(turns: int, asking: Coroutine[Any, Any, Any]) -> None:
    task = asyncio.ensure_future(asking)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def holding(address: BrokerAddress) -> AsyncIterator[tuple[Connection, Channel, list[Delivery]]]:
    """A channel that holds three deliveries of the queue `here`."""
    async with opened(address, here=QUORUM) as (connection, publishing):
        for number in range(3):
            await publishing.publish(message("here", f"m{number}"))
        channel = await connection.open_channel()
        held: list[Delivery] = []
        await channel.consume("here", held.append, prefetch=3, on_cancel=lambda: None, tag="first")
        await until(lambda: len(held) == 3)
        yield connection, channel, held


CALLS: dict[str, Callable[[Channel], Coroutine[Any, Any, Any]]] = {
    "queue_counts": lambda channel: channel.queue_counts("here"),
    "require_exchange": lambda channel: channel.require_exchange("amq.topic"),
    "consume": lambda channel: channel.consume("here", lambda _: None, prefetch=1, on_cancel=lambda: None),
    "cancel": lambda channel: channel.cancel("first"),
    "room": lambda channel: channel.room(),
    "drain": lambda channel: channel.drain(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_channel_outlives_the_caller_of_a_call_on_it(vhost: BrokerAddress, call: str) -> None:
    async def scenario() -> None:
        async with holding(vhost) as (connection, channel, held):
            for turns in range(TURNS):
                await cancelled_after(turns, CALLS[call](channel))
            assert (await channel.queue_counts("here")).ready == 0, "what the channel held is in the queue again"
            assert all(channel.ack(each.delivery_tag) for each in held)
            assert (await channel.queue_counts("here")).ready == 0
            await channel.close()
            assert await depth(connection, "here") == 0

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_channel_for_declaring_outlives_the_caller_of_a_call_on_it(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost) as (connection, _):
            admin = await connection.admin_channel()
            for turns in range(TURNS):
                await cancelled_after(turns, admin.queue_declare(f"q{turns}", exclusive=True))
            assert (await admin.queue_declare("q1", passive=True)).queue == "q1"
            assert not admin.is_closed

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_channel_is_closed_although_the_caller_of_close_is_cancelled(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        for turns in range(TURNS):
            async with holding(vhost) as (connection, channel, _):
                await cancelled_after(turns, channel.close())
                if turns:
                    await asyncio.wait_for(channel.closed.wait(), 20)
                else:
                    await channel.close()  # that one had not begun
                await until(lambda: depth(connection, "here"))
                admin = await connection.admin_channel()
                await admin.queue_purge("here")

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_opening_a_channel_may_be_cancelled_and_the_connection_opens_others(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with holding(vhost) as (connection, channel, held):
            for turns in range(TURNS * 2):
                await cancelled_after(turns, connection.open_channel())
            other = await connection.open_channel()
            assert (await other.queue_counts("here")).ready == 0
            assert all(channel.ack(each.delivery_tag) for each in held)
            assert (await channel.queue_counts("here")).ready == 0

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_what_waits_for_an_answer_on_a_channel_that_is_closed_is_told_so(vhost: BrokerAddress) -> None:
    """aiormq says it by cancelling, which would look as if the caller had been cancelled."""

    async def scenario() -> None:
        async with opened(vhost) as (connection, _):
            admin = await connection.admin_channel()

            async def ask() -> None:
                with translate():
                    await admin.queue_declare("q", exclusive=True)

            asking = [asyncio.ensure_future(ask()) for _ in range(20)]
            await asyncio.sleep(0)
            await connection.close()
            ends = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 10)
            assert {type(end) for end in ends} <= {type(None), BrokerUnavailableError}

    asyncio.run(scenario())


@pytest.mark.one_broker
@pytest.mark.parametrize("call", ["consume", "cancel"])
def test_without_an_answer_in_time_the_connection_is_closed(
    vhost: BrokerAddress, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not known whether the consumer is there, so it must not be left to the broker to deliver to it."""
    monkeypatch.setattr("amqpflow.rabbitmq.channel.ANSWER_TIMEOUT", 0.2)

    async def scenario() -> None:
        async with Proxy(vhost, heartbeat=None) as proxy, opened(vhost, here=QUORUM) as (_, look):
            await look.publish(message("here", "m"))
            async with await connect(proxy.address, name="amqpflow test") as connection:
                channel = await connection.open_channel()
                held: list[Delivery] = []
                if call == "cancel":
                    await channel.consume("here", held.append, prefetch=1, on_cancel=lambda: None, tag="first")
                    await until(lambda: held)
                proxy.to_client.clear()
                with pytest.raises(BrokerUnavailableError, match="no answer within"):
                    await (channel.cancel("first") if call == "cancel" else consume(channel, held, answer_within=0.2))
                await asyncio.wait_for(connection.closed.wait(), 20)
                assert channel.is_closed

                async def ready() -> int:
                    return (await look.queue_counts("here")).ready

                await until(ready)

    asyncio.run(scenario())


async def consume(channel: Channel, held: list[Delivery], **options: Any) -> None:
    await channel.consume("here", held.append, prefetch=1, on_cancel=lambda: None, **options)


# -- a connection


async def interrupted_at(
    count: int, work: Coroutine[Any, Any, T], interrupt: Callable[[asyncio.Task[T]], object]
) -> tuple[asyncio.Task[T], bool]:
    """Run a task, and interrupt it when the event loop is given its so many-th callback, whoever gives it.

    Returns:
        The task, which is done, and whether there were so many.
    """
    loop, task, calls = asyncio.get_running_loop(), asyncio.create_task(work), itertools.count(1)
    call_soon, is_interrupted = loop.call_soon, False

    def counted(*args: Any, **options: Any) -> asyncio.Handle:
        nonlocal is_interrupted
        if next(calls) == count:
            is_interrupted = True
            interrupt(task)
        return call_soon(*args, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "call_soon", counted)
        await asyncio.wait([task])
    return task, is_interrupted


async def opens_a_channel(scene: Shop) -> None:
    async with await connect(scene.address, name="amqpflow test") as connection:
        await (await connection.open_channel()).close()


async def publishes(scene: Shop) -> None:
    async with Publisher(scene.address.url) as publisher:
        await publisher.publish(b"", routing_key="orders.parking")


async def starts(scene: Shop) -> None:
    async with scene.consumer(orders=lambda _: None):
        pass


async def abandons(scene: Shop) -> None:
    consumer = scene.consumer(orders=lambda _: None)
    try:
        await consumer.start()
    finally:
        await consumer.abandon()


async def serves(scene: Shop) -> None:
    consumer = scene.consumer(orders=lambda _: None)
    consumer.on("consumer.started")(lambda _: consumer.stop_soon())
    await consumer.serve()


@pytest.mark.one_broker
@pytest.mark.parametrize("work", [opens_a_channel, publishes, starts, abandons, serves])
def test_no_connection_is_left_wherever_who_opened_it_is_cancelled(
    vhost: BrokerAddress, work: Callable[[Shop], Coroutine[Any, Any, None]]
) -> None:
    """Its heartbeats would keep it alive for as long as the process lives, with what it consumes."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            others = asyncio.all_tasks()
            for count in itertools.count(1):
                task, is_interrupted = await interrupted_at(count, work(scene), asyncio.Task.cancel)
                assert task.cancelled() or task.exception() is None
                await until(lambda: asyncio.all_tasks() == others)
                if not is_interrupted:
                    break
            assert count > 100

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_no_connection_is_left_when_a_blocked_loop_sees_it_open_and_its_time_over_at_once(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, writes_left = 0.2, 0
    write = asyncio.StreamWriter.write

    def then_block(writer: asyncio.StreamWriter, data: bytes) -> None:
        nonlocal writes_left
        write(writer, data)
        writes_left -= 1
        if not writes_left:
            time.sleep(seconds * 1.5)

    monkeypatch.setattr(asyncio.StreamWriter, "write", then_block)

    async def scenario() -> None:
        nonlocal writes_left
        for writes in range(1, 5):  # the protocol header, Start-Ok, Tune-Ok, Open
            writes_left = writes
            with pytest.raises(BrokerUnavailableError, match="in time"):
                await connect(vhost, name="amqpflow test", timeout=seconds)
            await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    asyncio.run(scenario())


# -- a reading of a parking queue

IDS = [f"m{number:04}" for number in range(600)]
WORK, PARKING = "orders", "orders.parking"


def keeps(parked: Any) -> bool:
    return int(parked.message_id[1:]) % 2 == 0


@pytest.mark.parametrize("question", ["proof", "guard"])
def test_a_replay_ends_well_while_a_question_of_its_own_is_due(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """It asks whether its acks were taken, and how many were parked meanwhile, until it ends."""
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)
    ask = ParkingReader.prove if question == "proof" else ParkingReader.parked_meanwhile
    cancelled = 0

    async def again_and_again(reader: ParkingReader) -> Any:
        nonlocal cancelled
        try:
            while True:
                await ask(reader)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    monkeypatch.setattr(ParkingReader, ask.__name__, again_and_again)
    monkeypatch.setattr(queue_pass, "PROVE_EVERY", 0.0)
    monkeypatch.setattr(sending, "WINDOW", 50)  # so that it acks several times
    monkeypatch.setattr(reparked, "GUARD_EVERY", 0.0)
    choice = ReplayRequest(select=keeps, stop_if_reparked=0.9 if question == "guard" else None)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in IDS])
            report = await replayer.replay_parked(broker, compiled, choice=choice)
            assert (report.replayed, report.complete, report.remaining, report.notes) == (300, True, 300, [])
            left = [each.properties.message_id for each in await drained(connection, PARKING, 300)]
            assert left == IDS[1::2]

    asyncio.run(go())
    assert cancelled


def test_a_reading_that_is_cancelled_in_any_call_gives_everything_back_in_its_order(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)
    to_its_end = rpc._to_its_end
    left = 0
    reading: asyncio.Future[None]

    async def counted(call: Coroutine[Any, Any, Any]) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            asyncio.get_running_loop().call_soon(reading.cancel)
        return await to_its_end(call)

    async def go() -> None:
        nonlocal left, reading
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in IDS[:50]])
            monkeypatch.setattr(rpc, "_to_its_end", counted)

            async def read() -> None:
                async with ParkingReader(broker.connection, PARKING, quorum=True) as reader:
                    async for delivery in deliveries(reader, at_most=40):
                        reader.keep(delivery)

            for number in range(1, 100):
                left, reading = number, asyncio.ensure_future(read())
                await asyncio.gather(reading, return_exceptions=True)
                if not reading.cancelled():
                    break
                await depth_becomes(connection, PARKING, 50)
            assert reading.result() is None
            assert number > 5
            left = -1
            assert [each.properties.message_id for each in await drained(connection, PARKING, 50)] == IDS[:50]

    asyncio.run(go())
