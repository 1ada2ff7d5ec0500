"""One Publisher in several event loops, threads and processes; closed while it publishes, and opened again."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import subprocess
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from amqpflow import BrokerUnavailableError, OutgoingMessage, Publisher, PublishUncertainError, UsageError
from amqpflow.rabbitmq.address import BrokerAddress
from tests.faults.proxy import Proxy
from tests.shop import Shop, cut, shop
from tests.waiting import until

pytestmark = pytest.mark.one_broker

SLOW = re.compile(r"Executing <.*> took \d+\.\d+ seconds")  #: a callback of more than 0.1 s
IN_SHORT_LOOPS = """
import asyncio
import gc
from amqpflow import Publisher

publisher = Publisher()  # of the module, as in a service with a request handler that is not async
for number in range(5):
    print(asyncio.run(publisher.publish(b"", routing_key="orders", message_id=f"m{number}")))


async def entered(number):
    async with publisher:
        return await publisher.publish(b"", routing_key="orders", message_id=f"m{number}")


for number in range(5, 8):
    print(asyncio.run(entered(number)))
"""
AFTER_A_FORK = """
import asyncio, os, sys
from amqpflow import Publisher, UsageError

publisher = Publisher()
loop = asyncio.new_event_loop()


def publish(name, where=asyncio.run):
    return where(publisher.publish(b"", routing_key="orders", message_id=name))


publish("before", loop.run_until_complete)
child = os.fork()
if child == 0:
    try:
        publish("never", loop.run_until_complete)
    except UsageError as error:
        print(error, flush=True)
    publish("child")
    os._exit(0)
os.waitpid(child, 0)
publish("parent", loop.run_until_complete)
loop.run_until_complete(publisher.close())
loop.close()
"""


async def ids_in(scene: Shop) -> list[str]:
    return sorted(each.header.properties.message_id for each in await scene.take("orders"))


async def run(vhost: BrokerAddress, code: str) -> str:
    """Run a program that warns of whatever is left open; it has to say nothing on standard error.

    But for what a slow machine makes asyncio say there.
    """
    command = (sys.executable, "-X", "dev", "-W", "error", "-c", code)
    environment = os.environ | {"AMQPFLOW_URL": vhost.url}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    said, complaints = await asyncio.wait_for(process.communicate(), 60)
    complained = [each for each in complaints.decode().splitlines() if not SLOW.fullmatch(each)]
    assert (process.returncode, complained) == (0, [])
    return said.decode()


def test_one_event_loop_after_the_other_leaves_nothing_open(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            ids = [f"m{number}" for number in range(8)]
            assert (await run(vhost, IN_SHORT_LOOPS)).split() == ids
            assert await ids_in(scene) == ids

    asyncio.run(scenario())


def test_a_forked_process_publishes_on_a_connection_of_its_own(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            assert "the process was forked with this event loop" in await run(vhost, AFTER_A_FORK)
            assert await ids_in(scene) == ["before", "child", "parent"]

    asyncio.run(scenario())


def test_threads_publish_at_once_each_in_its_event_loop(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            publisher = Publisher(vhost.url)
            results: list[Any] = []

            async def some(thread: int) -> None:
                async with publisher:
                    ids = [f"t{thread}-{number}" for number in range(50)]
                    results.extend(
                        await publisher.publish_many(
                            OutgoingMessage(body=b"", routing_key="orders", message_id=each) for each in ids
                        )
                    )

            def in_a_thread(work: Coroutine[Any, Any, None]) -> threading.Thread:
                thread = threading.Thread(target=asyncio.run, args=(work,))
                thread.start()
                return thread

            threads = [in_a_thread(some(thread)) for thread in range(4)]
            await some(4)  # closes this one, and none of those
            for thread in threads:
                await asyncio.to_thread(thread.join)
            assert Counter(type(each) for each in results) == {str: 250}
            assert await ids_in(scene) == sorted(results)

    asyncio.run(scenario())


def test_without_an_event_loop_it_is_said_what_to_do() -> None:
    publisher = Publisher("amqp://broker/")
    with pytest.raises(UsageError, match="running event loop") as raised:
        publisher.publish(b"").send(None)
    assert "message.publish" in raised.value.hint


def test_closing_waits_for_confirms_and_refuses_what_has_not_begun(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, Proxy(vhost, heartbeat=None) as proxy:
            publisher = Publisher(proxy.address.url)
            await publisher.publish(b"", routing_key="orders", message_id="first")
            proxy.to_client.clear()  # the broker gets what is published, and its confirms wait
            ids = [f"m{number:04}" for number in range(1100)]
            window = [asyncio.create_task(publisher.publish(b"", routing_key="orders", message_id=m)) for m in ids]
            messages = [OutgoingMessage(body=b"", routing_key="orders")] * 3
            many = asyncio.create_task(publisher.publish_many(messages))
            await until(lambda: publisher._here()._outstanding == 1000)
            closing = asyncio.create_task(publisher.close(timeout=30))
            await asyncio.sleep(0)
            with pytest.raises(BrokerUnavailableError, match="closed"):
                await publisher.publish(b"", routing_key="orders")
            late = await asyncio.gather(*window[1000:], return_exceptions=True)
            assert Counter(type(each) for each in late) == {BrokerUnavailableError: 100}
            assert [type(each) for each in await many] == [BrokerUnavailableError] * 3
            assert not closing.done()
            proxy.to_client.set()
            await closing
            assert await asyncio.gather(*window[:1000]) == ids[:1000]
            assert await ids_in(scene) == sorted(["first", *ids[:1000]])

    asyncio.run(scenario())


def test_closing_does_not_wait_for_ever(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost), Proxy(vhost, heartbeat=None) as proxy:
            publisher = Publisher(proxy.address.url)
            await publisher.publish(b"", routing_key="orders")
            proxy.to_client.clear()
            waiting = asyncio.create_task(publisher.publish(b"", routing_key="orders", message_id="m"))
            await until(lambda: publisher._here()._outstanding)
            closing = asyncio.create_task(publisher.close(timeout=0.1))
            (result,) = await asyncio.gather(waiting, return_exceptions=True)
            assert (type(result).__name__, getattr(result, "message_id", "")) == ("PublishUncertainError", "m")
            await closing

    asyncio.run(scenario())


def test_it_can_be_entered_again_after_it_was_closed(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            publisher = Publisher(vhost.url)
            for name in ("a", "b"):
                async with publisher:
                    await publisher.publish(b"", routing_key="orders", message_id=name)
                with pytest.raises(BrokerUnavailableError, match="closed"):
                    await publisher.publish(b"", routing_key="orders")
                await publisher.close()
            assert await ids_in(scene) == ["a", "b"]

    asyncio.run(scenario())


def test_a_lost_connection_is_dropped_in_any_thread_without_a_trace(vhost: BrokerAddress) -> None:
    """aio-pika would close it then, as a task of the event loop that happens to run in that thread."""

    async def scenario() -> None:
        async with shop(vhost), Publisher(vhost.url) as publisher:
            await publisher.publish(b"", routing_key="orders")
            connection = publisher._here().outbox._connection
            assert connection is not None
            last = [connection._pika]
            dropped = weakref.ref(last[0])
            cut([connection])
            await connection.closed.wait()
            del connection
            await publisher.publish(b"", routing_key="orders")

            async def drop() -> int:
                last.clear()
                gc.collect()
                return len(asyncio.all_tasks())

            assert await asyncio.to_thread(asyncio.run, drop()) == 1
            assert dropped() is None

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_two_closes_at_once_wait_for_the_same_confirms(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost), Publisher(vhost.url) as publisher:
            await publisher.publish(b"", routing_key="orders")
            some = [OutgoingMessage(body=b"x" * 200_000, routing_key="orders") for _ in range(50)]
            many = asyncio.create_task(publisher.publish_many(some))
            await until(lambda: publisher._here()._outstanding > 10)
            await asyncio.gather(
                publisher.close(timeout=20), publisher.close(timeout=0.01), publisher.close(timeout=20)
            )
            assert not [each for each in await many if isinstance(each, PublishUncertainError)]

    asyncio.run(scenario())
