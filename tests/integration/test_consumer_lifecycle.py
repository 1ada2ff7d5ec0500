"""A consumer in threads and event loops: started and stopped twice, elsewhere, in any order; several in one process."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from amqpflow import Consumer, Message, NotAppliedError, UsageError
from amqpflow.rabbitmq.address import BrokerAddress, resolve_address
from tests.shop import Shop, connections_of, cut, shop
from tests.waiting import until

pytestmark = pytest.mark.one_broker


def counting(scene: Shop, **options: float) -> Consumer:
    """A consumer that writes down what it has handled."""

    async def handle(message: Message) -> None:
        scene.done.append(str(message.message_id))

    consumer = scene.consumer(orders=handle)
    for name, value in options.items():
        setattr(consumer, name, value)
    return consumer


def in_a_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def call() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, raised


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[BrokerAddress, asyncio.Event]]:
    """An address that takes connections and answers nothing, and whether one was taken."""
    reached = asyncio.Event()

    async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(never_answers, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield resolve_address(f"amqp://guest:guest@127.0.0.1:{port}/"), reached


async def handles(scene: Shop, name: str) -> None:
    await scene.publish(name)
    await until(lambda: name in scene.done)


def test_run_in_a_thread_consumes_until_it_is_told_to_stop(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            consumer = counting(scene)
            for name in ("first", "again"):
                thread, raised = in_a_thread(consumer.run)
                await handles(scene, name)
                assert consumer.healthy
                consumer.stop_soon()  # of another thread than its event loop's
                await asyncio.to_thread(thread.join, 30)
                assert (thread.is_alive(), raised, consumer.healthy) == (False, [], False)

    asyncio.run(scenario())


def test_the_errors_of_run_in_a_thread_are_those_of_the_start(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            scene.delete("queues", "orders")
            thread, raised = in_a_thread(counting(scene).run)
            await asyncio.to_thread(thread.join, 30)
            assert [type(each) for each in raised] == [NotAppliedError]

    asyncio.run(scenario())


def test_run_where_an_event_loop_runs_names_serve(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            with pytest.raises(UsageError, match="event loop runs in this thread") as raised:
                counting(scene).run()
            assert "serve()" in raised.value.hint

    asyncio.run(scenario())


def test_a_second_start_is_refused_and_the_first_goes_on(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            consumer = counting(scene)
            starts = await asyncio.gather(consumer.start(), consumer.start(), return_exceptions=True)
            assert [type(each) for each in starts] == [type(None), UsageError]
            for again in (consumer.start, consumer.serve):
                with pytest.raises(UsageError, match="runs already"):
                    await again()
            elsewhere, raised = in_a_thread(lambda: asyncio.run(consumer.start()))
            await asyncio.to_thread(elsewhere.join, 30)
            assert [type(each) for each in raised] == [UsageError]
            elsewhere, raised = in_a_thread(consumer.run)
            await asyncio.to_thread(elsewhere.join, 30)
            assert [type(each) for each in raised] == [UsageError]
            await handles(scene, "m")
            assert consumer.totals["received"] == 1
            await consumer.stop()

    asyncio.run(scenario())


def test_it_can_be_stopped_twice_and_at_once_and_started_again(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            started, release = asyncio.Event(), asyncio.Event()

            async def handle(message: Message) -> None:
                started.set()
                await release.wait()
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            await consumer.stop()  # before it was ever started
            for name in ("a", "b"):
                started.clear()
                release.clear()
                await consumer.start()
                await scene.publish(name)
                await started.wait()
                stops = [asyncio.create_task(consumer.stop()) for _ in range(2)]
                await until(lambda: consumer.stopping)
                await asyncio.sleep(0)
                assert not any(each.done() for each in stops), "both wait for the handler"
                release.set()
                await asyncio.gather(*stops)
                assert scene.done[-1] == name
                await consumer.stop()
            assert scene.done == ["a", "b"]

    asyncio.run(scenario())


def test_a_stop_that_is_cancelled_goes_on_and_can_be_awaited_again(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            started, release = asyncio.Event(), asyncio.Event()

            async def handle(message: Message) -> None:
                started.set()
                await release.wait()
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            await consumer.start()
            await scene.publish("m")
            await started.wait()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(consumer.stop(), 0.05)
            with pytest.raises(UsageError, match="runs already"):
                await consumer.start()
            release.set()
            await consumer.stop()
            assert scene.done == ["m"]

    asyncio.run(scenario())


def test_it_is_stopped_from_another_event_loop(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            consumer = counting(scene)
            await consumer.start()
            await handles(scene, "m")
            thread, raised = in_a_thread(lambda: asyncio.run(consumer.stop()))
            await asyncio.to_thread(thread.join, 30)
            assert (thread.is_alive(), raised, consumer.healthy) == (False, [], False)
            async with consumer:
                await handles(scene, "again")

    asyncio.run(scenario())


def test_a_stop_while_it_waits_for_its_topology_ends_the_start(
    vhost: BrokerAddress, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "amqpflow.consumer")

    async def scenario() -> None:
        async with shop(vhost) as scene:
            scene.delete("queues", "orders")
            consumer = counting(scene, wait_for_topology=60)
            starting = asyncio.create_task(consumer.start())
            await until(lambda: "waiting for the topology" in caplog.text)
            began = time.monotonic()
            await consumer.stop()
            with pytest.raises(NotAppliedError):
                await starting
            assert time.monotonic() - began < 30
            await scene.declare()
            async with consumer:
                await handles(scene, "m")

    asyncio.run(scenario())


def test_what_is_asked_before_the_start_ends_it_once_started(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            consumer = counting(scene)
            for _ in range(2):
                consumer.stop_soon()
                await asyncio.wait_for(consumer.serve(), 30)
            async with consumer:
                await handles(scene, "m")

    asyncio.run(scenario())


def test_a_consumer_that_was_asked_twice_to_stop_runs_again(vhost: BrokerAddress) -> None:
    """As a consumer in a thread that two callers stop, and the application starts again."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            gate = asyncio.Event()

            async def handle(message: Message) -> None:
                scene.done.append(str(message.message_id))
                await gate.wait()

            consumer = scene.consumer(orders=handle)
            for name in ("first", "again"):
                gate.clear()
                serving = asyncio.create_task(consumer.serve())
                await handles(scene, name)
                consumer.stop_soon()
                await until(lambda: consumer._was_stopped)  # it waits for the handler
                consumer.stop_soon()
                gate.set()
                await asyncio.wait_for(serving, 30)

    asyncio.run(scenario())


def test_a_start_that_was_asked_to_stop_leaves_no_such_request_for_the_next(
    vhost: BrokerAddress, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "amqpflow.consumer")

    async def scenario() -> None:
        async with shop(vhost) as scene:
            scene.delete("queues", "orders")
            consumer = counting(scene, wait_for_topology=60)
            starting = asyncio.create_task(consumer.start())
            await until(lambda: "waiting for the topology" in caplog.text)
            consumer.stop_soon()
            with pytest.raises(NotAppliedError):
                await starting
            await scene.declare()
            async with consumer:
                await handles(scene, "m")

    asyncio.run(scenario())


@pytest.mark.parametrize("stop", [Consumer.stop, Consumer.abandon])
def test_a_stop_ends_a_start_that_connects(vhost: BrokerAddress, stop: Callable[[Consumer], Awaitable[None]]) -> None:
    """To an address that answers nothing: nothing waits for its time limits, and nothing consumes afterwards."""

    async def scenario() -> None:
        async with shop(vhost) as scene, silent() as (nowhere, reached):
            consumer = counting(scene)
            there, consumer.address = consumer.address, nowhere
            starting = asyncio.create_task(consumer.start())
            await reached.wait()
            async with asyncio.timeout(8):  # less than it takes to give up connecting
                await stop(consumer)
                await starting
            assert (consumer.started, consumer.healthy) == (False, False)
            consumer.address = there
            async with consumer:
                await handles(scene, "m")
            await scene.publish("left")
            assert await scene.depth("orders") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("stop", [Consumer.stop, Consumer.abandon])
def test_a_stop_ends_a_start_that_follows_at_once(
    vhost: BrokerAddress, stop: Callable[[Consumer], Awaitable[None]]
) -> None:
    """As in a loop that tries until the broker is there."""

    async def scenario() -> None:
        async with shop(vhost) as scene, silent() as (nowhere, reached):
            consumer = counting(scene)
            there, consumer.address = consumer.address, nowhere

            async def start_twice() -> None:
                await consumer.start()
                consumer.address = there
                await consumer.start()

            starting = asyncio.create_task(start_twice())
            await reached.wait()
            await stop(consumer)
            await starting
            assert not consumer.healthy
            await scene.publish("left")
            assert await scene.depth("orders") == 1
            async with consumer:
                await handles(scene, "left")

    asyncio.run(scenario())


@pytest.mark.parametrize("stop", [Consumer.stop, Consumer.abandon])
def test_a_stop_ends_a_reconnect(vhost: BrokerAddress, stop: Callable[[Consumer], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, silent() as (nowhere, reached):
            consumer = counting(scene)
            opened = connections_of(consumer)
            async with consumer:
                await handles(scene, "m")
                consumer.address = nowhere
                cut(opened)
                await reached.wait()
                async with asyncio.timeout(8):  # less than it takes to give up connecting
                    await stop(consumer)

    asyncio.run(scenario())


@pytest.mark.leaves_tasks("event loops that end while the consumer runs are what is tested")
def test_an_event_loop_that_ended_without_a_stop_leaves_it_to_the_next(vhost: BrokerAddress) -> None:
    scenes: list[Consumer] = []

    async def scenario(number: int) -> None:
        async with shop(vhost) as scene:
            if not scenes:
                scenes.append(counting(scene))
            consumer = scenes[0]
            await consumer.start()
            assert consumer.healthy
            before = consumer.totals["acked"]
            await scene.publish(f"m{number}")
            await until(lambda: consumer.totals["acked"] > before)

    for number in range(3):
        asyncio.run(scenario(number))
    assert not scenes[0].healthy
    asyncio.run(scenes[0].stop())


def test_one_signal_stops_all_consumers_that_serve_in_an_event_loop(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,), "audit": (50,)}) as scene:
            consumers = [scene.consumer(**{queue: lambda message: None}) for queue in ("orders", "audit")]
            serving = asyncio.gather(*(each.serve() for each in consumers))
            await until(lambda: all(each.healthy for each in consumers))
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(serving, 30)

    asyncio.run(scenario())


def test_serving_is_cancelled_like_any_task(vhost: BrokerAddress) -> None:
    """It ends no process: that is for a second signal."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            consumer = counting(scene)
            serving = asyncio.create_task(consumer.serve())
            await until(lambda: consumer.healthy)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            async with consumer:
                await handles(scene, "m")

    asyncio.run(scenario())
