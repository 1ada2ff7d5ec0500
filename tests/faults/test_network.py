"""A network that drops, stalls, goes deaf and cuts after any number of bytes, under consumers that retry and park.

`AMQPFLOW_SOAK=20000 pytest tests/faults/test_network.py` runs so many messages through each test, on every broker.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amqpflow import Message, Park, Retry
from amqpflow.delivery.backoff import Backoff
from amqpflow.model.routes import NativeRetry
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.consuming import connections as consuming
from amqpflow.services.consuming import pending as in_flight
from tests.faults.proxy import Proxy
from tests.shop import Shop, hop_of, shop
from tests.waiting import until

MESSAGES = int(os.environ.get("AMQPFLOW_SOAK", "600"))
ONE = () if "AMQPFLOW_SOAK" in os.environ else (pytest.mark.one_broker,)
NATIVE = pytest.mark.releases(">=4.3")


async def cut_anywhere(proxy: Proxy, chance: random.Random) -> None:
    """Let a random number of bytes through, and cut."""
    before = proxy.cuts
    proxy.cut_after(chance.randrange(1, 60_000))
    try:
        await until(lambda: proxy.cuts > before, timeout=3)
    except AssertionError:
        proxy.cut()


async def stall(proxy: Proxy, chance: random.Random) -> None:
    """Nothing comes through for longer than heartbeats may be missing; then everything that was held back."""
    proxy.to_broker.clear()
    proxy.to_client.clear()
    await asyncio.sleep(chance.uniform(0.1, 4.0))
    proxy.restore()


async def deaf(proxy: Proxy, chance: random.Random) -> None:
    """The broker hears us, and we do not hear it: confirms are lost, acks are not."""
    proxy.to_client.clear()
    await asyncio.sleep(chance.uniform(0.1, 4.0))
    proxy.cut()
    proxy.restore()


async def mute(proxy: Proxy, chance: random.Random) -> None:
    """We hear the broker, and it does not hear us: deliveries come, no ack arrives."""
    proxy.to_broker.clear()
    await asyncio.sleep(chance.uniform(0.1, 4.0))
    proxy.cut()
    proxy.restore()


Fault = Callable[[Proxy, random.Random], Awaitable[None]]


@asynccontextmanager
async def failing(proxy: Proxy, faults: tuple[Fault, ...], seed: int) -> AsyncIterator[None]:
    """One kind of fault after the other, with short pauses, for as long as the context lasts."""
    chance = random.Random(seed)

    async def go() -> None:
        for fault in itertools.cycle(faults):
            await fault(proxy, chance)
            await asyncio.sleep(chance.uniform(0.05, 1.0))

    task = asyncio.create_task(go())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        proxy.restore()


@pytest.fixture(autouse=True)
def reconnect_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "_BACKOFF", Backoff(0.5, 0.5))
    monkeypatch.setattr(in_flight, "CONFIRM_PATIENCE", 0.3)  # so that stalls are noticed, and end in the middle of that


CUT, SILENCE = (cut_anywhere,), (deaf, mute, stall)


@pytest.mark.parametrize(
    ("kind", "faults"),
    [
        pytest.param("quorum", CUT, id="quorum-cut"),
        pytest.param("quorum", SILENCE, id="quorum-silence", marks=ONE),
        pytest.param("classic", CUT, id="classic-cut", marks=ONE),
        pytest.param("classic", SILENCE, id="classic-silence", marks=ONE),
        pytest.param("native", CUT, id="native-cut", marks=NATIVE),
        pytest.param("native", SILENCE, id="native-silence", marks=NATIVE),
    ],
)
def test_no_message_is_lost_and_second_copies_are_told(
    vhost: BrokerAddress, kind: str, faults: tuple[Fault, ...], record_property: Callable[[str, object], None]
) -> None:
    native = NativeRetry(min_ms=50, max_ms=50, retries=40) if kind == "native" else None
    queue_type = "classic" if kind == "classic" else "quorum"
    count = MESSAGES if faults is CUT else MESSAGES // 2  # a silence takes seconds
    ids = [f"m{number}" for number in range(count)]
    to_park = {f"m{number}" for number in range(count) if number % 10 == 3}
    finished: dict[str, list[str]] = defaultdict(list)  # by message: the hop of each handled delivery

    async def handle(message: Message) -> None:
        name = str(message.message_id)
        number = int(name[1:])
        if number % 10 == 3:
            raise Park("told so")
        if number % 2 and message.attempt == 1:
            raise Retry
        await asyncio.sleep(0.02)
        finished[name].append(message.hop)

    async def scenario() -> None:
        options = {"queue_type": queue_type, "delivery_limit": 1000, "native": native}
        async with shop(vhost, {"orders": (50,)}, **options) as scene, Proxy(vhost) as proxy:
            consumer = scene.consumer(orders=handle, concurrency=20, prefetch=100)
            consumer.address = proxy.address
            consumer.shutdown_timeout = 5
            await scene.publish(*ids)
            parked: list[Any] = []
            async with consumer, failing(proxy, faults, seed=MESSAGES):
                await until(lambda: all_settled(scene, parked), timeout=120 + MESSAGES / 50, every=0.1)
            assert proxy.cuts
            await account(scene, proxy, parked)

    async def all_settled(scene: Shop, parked: list[Any]) -> bool:
        parked += await scene.take("orders.parking")
        names = {str(each.header.properties.message_id) for each in parked}  # some are there twice
        return names >= to_park and len(finished) == count - len(to_park)

    async def account(scene: Shop, proxy: Proxy, parked: list[Any]) -> None:
        parked += await scene.take("orders.parking")
        names = Counter(str(each.header.properties.message_id) for each in parked)
        assert names.keys() | finished.keys() == set(ids), "every message is done or parked"
        # a second copy bears the hop of the first, so that a handler can tell
        parked_hops = {(str(each.header.properties.message_id), hop_of(each)) for each in parked}
        assert len(parked_hops) == len(names)
        assert all(len(set(hops)) == 1 for hops in finished.values())
        again = sum(len(hops) - 1 for hops in finished.values()) + sum(names.values()) - len(names)
        record_property("messages", count)
        record_property("duplicates", again)
        record_property("cuts", proxy.cuts)
        print(f"{kind}: {count} messages, {proxy.cuts} connections cut, {again} duplicates, all recognised")

    asyncio.run(scenario())
