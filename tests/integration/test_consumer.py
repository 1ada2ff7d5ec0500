"""What a handler says, and what becomes of its message."""

from __future__ import annotations

import asyncio
import gzip
import re
import threading
import time
import zlib
from collections import Counter
from typing import Any

import pytest

from amqpflow import Ack, Consumer, Discard, Message, NotAppliedError, Park, Retry
from amqpflow.model import headers as h
from amqpflow.model.routes import NativeRetry, RetryRule
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.loading.topology import Topology
from tests.shop import RETRY, shop
from tests.topologies import topology
from tests.waiting import until


class Invalid(ValueError):
    pass


RULES = [
    RetryRule(errors=("ValueError",), park="invalid"),
    RetryRule(errors=("TimeoutError",), park="too slow"),
]

#: what the handler does with a message of this id -> where it ends: done, or its reason and detail in parking
ENDS: dict[str, tuple[str, str | None] | str] = {
    "none": "done",
    "ack": "done",
    "raise ack": "done",
    "retry": "done",
    "raise retry": "done",
    "retry after": "done",
    "error": "done",
    "discard": "gone",
    "raise discard": "gone",
    "park": ("parked", "told so"),
    "raise park": ("parked", None),
    "always": ("exhausted", None),
    "subclass of a rule's error": ("permanent", "invalid"),
    "timeout": ("permanent", "too slow"),
    "own timeout": ("permanent", "too slow"),
    "result": ("bad-result", None),
    "type": ("bad-result", None),
    "json": ("undecodable", None),
    "park in a group": ("parked", "told so"),
    "discard in a group": "gone",
    "a rule's error in a group": ("permanent", "invalid"),
    "error beside a discard": ("exhausted", None),
    "cancellation in a group": ("exhausted", None),
}


def act(message: Message) -> Any:
    """What both handlers do but for waiting."""
    first = message.attempt == 1
    match message.message_id:
        case "ack":
            return Ack()
        case "raise ack":
            raise Ack
        case "retry" if first:
            return Retry(reason="busy")
        case "raise retry" if first:
            raise Retry
        case "retry after" if first:
            return Retry(after=0.06)
        case "error" if first:
            raise OSError("once")
        case "discard":
            return Discard("of no use")
        case "raise discard":
            raise Discard
        case "park":
            return Park("told so")
        case "raise park":
            raise Park
        case "always":
            raise KeyError("always")
        case "subclass of a rule's error":
            raise Invalid("never")
        case "own timeout":
            raise TimeoutError("of the handler's own making")
        case "result":
            return {"status": "ok"}
        case "type":
            return Ack
        case "json":
            message.json()
        case "park in a group":
            raise ExceptionGroup("tasks", [Park("told so")])
        case "discard in a group":
            raise ExceptionGroup("tasks", [ExceptionGroup("more", [Discard("of no use")])])
        case "a rule's error in a group":
            raise ExceptionGroup("tasks", [KeyError("sku"), Invalid("never")])
        case "error beside a discard":
            raise ExceptionGroup("tasks", [Discard("of no use"), KeyError("sku")])
        case "cancellation in a group":
            raise BaseExceptionGroup("tasks", [asyncio.CancelledError()])
    return None


NATIVE = NativeRetry(min_ms=50, max_ms=100, retries=2)


@pytest.mark.parametrize(
    ("kind", "native"),
    [
        ("async", None),
        ("thread", None),
        pytest.param("async", NATIVE, marks=pytest.mark.releases(">=4.3")),
        pytest.param("thread", NATIVE, marks=pytest.mark.releases(">=4.3")),
    ],
    ids=["async", "thread", "async-native", "thread-native"],
)
def test_every_outcome_returned_or_raised(vhost: BrokerAddress, kind: str, native: NativeRetry | None) -> None:
    attempts: Counter[str] = Counter()
    release = threading.Event()

    async def scenario() -> None:
        async with shop(vhost, rules=RULES, native=native) as scene:

            def note(message: Message, result: Any) -> Any:
                if result is None or isinstance(result, Ack):
                    scene.done.append(str(message.message_id))
                return result

            def in_thread(message: Message) -> Any:
                attempts[str(message.message_id)] += 1
                if message.message_id == "timeout":
                    release.wait(30)  # a thread runs on, and what it does then is not counted
                    return None
                if message.message_id == "raise ack":
                    scene.done.append("raise ack")
                return note(message, act(message))

            async def in_loop(message: Message) -> Any:
                if message.message_id == "timeout":
                    await asyncio.sleep(30)
                return in_thread(message)

            consumer = scene.consumer(orders=in_loop if kind == "async" else in_thread, timeout=2)
            async with consumer:
                await scene.publish(*ENDS, body=b"{no json")
                gone = [name for name, end in ENDS.items() if end == "gone"]
                await until(
                    lambda: sum(consumer.totals[each] for each in ("acked", "discarded", "parked")) == len(ENDS)
                )
                release.set()
            parked = {each.header.properties.message_id: each for each in await scene.take("orders.parking")}
            assert await scene.account() == Counter(name for name, end in ENDS.items() if end == "done")
            assert consumer.totals["discarded"] == len(gone)
            for name, end in ENDS.items():
                assert (name in parked) == isinstance(end, tuple), name
                if isinstance(end, tuple):
                    headers = parked[name].header.properties.headers
                    assert headers[h.REASON] == end[0], name
                    assert end[1] is None or headers[h.REASON_DETAIL] == end[1], name
            assert attempts["always"] == 3
            assert attempts["retry"] == attempts["error"] == attempts["retry after"] == 2
            always = parked["always"].header.properties.headers
            assert always[h.ERROR_TYPE] == "KeyError"
            assert always[h.ERROR_MESSAGE] == "'always'"
            assert always[h.ATTEMPT] == 3
            # what the broker retried it kept no record of
            tiers = [] if native else ["orders.retry.50ms", "orders.retry.100ms"]
            assert [each["tier"] for each in always[h.HISTORY]] == [*tiers, "parking"]
            assert (
                "ran longer than its timeout of 2s" in parked["timeout"].header.properties.headers[h.ERROR_MESSAGE]
                or kind == "async"
            )
            assert "JSON" in parked["json"].header.properties.headers[h.ERROR_MESSAGE]

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_compressed_bodies_are_decoded_and_bombs_are_parked(vhost: BrokerAddress) -> None:
    bodies = {
        "gzip": (gzip.compress(b'{"total": 1}'), "gzip"),
        "two members": (gzip.compress(b'{"total"') + gzip.compress(b": 1}"), "GZIP"),
        "deflate": (zlib.compress(b'{"total": 1}'), "deflate"),
        "identity": (b'{"total": 1}', "identity"),
        "bomb": (gzip.compress(b"0" * 100_000_000), "gzip"),
        "bomb in members": (gzip.compress(b"0" * 40_000_000) * 3, "gzip"),
        "cut short": (gzip.compress(b'{"total": 1}')[:-3], "gzip"),
        "no gzip": (b'{"total": 1}', "gzip"),
        "utf-16": ('{"total": 1}'.encode("utf-16"), None),
        "no utf-8": (b'{"total": "\xff"}', None),
    }
    totals: dict[str, Any] = {}

    async def handle(message: Message) -> None:
        totals[str(message.message_id)] = message.json()["total"]

    async def scenario() -> None:
        async with shop(vhost) as scene, scene.consumer(orders=handle) as consumer:
            for name, (body, encoding) in bodies.items():
                await scene.publish(name, body=body, content_encoding=encoding)
            await until(lambda: consumer.totals["acked"] + consumer.totals["parked"] == len(bodies))
            parked = {each.header.properties.message_id: each for each in await scene.take("orders.parking")}
            assert totals == dict.fromkeys(["gzip", "two members", "deflate", "identity", "utf-16"], 1)
            assert set(parked) == bodies.keys() - totals.keys()
            for each in parked.values():
                assert each.header.properties.headers[h.REASON] == "undecodable"
                assert each.body == bodies[each.header.properties.message_id][0]
            assert "grows past" in parked["bomb"].header.properties.headers[h.ERROR_MESSAGE]

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_stack_is_kept_only_when_it_is_asked_for(vhost: BrokerAddress) -> None:
    async def fail(message: Message) -> None:
        raise ValueError("x")

    async def scenario() -> None:
        async with shop(vhost, {"orders": ()}) as scene:
            for keep in (False, True):
                consumer = Consumer(Topology(compiled=scene.compiled), vhost.url, keep_stack=keep)
                consumer.add_handler("orders", fail)
                async with consumer:
                    await scene.publish("m")
                    message = await scene.take_one("orders.parking")
                headers = message.header.properties.headers
                assert (h.ERROR_STACK in headers) is keep
                assert re.fullmatch(r"tests/integration/test_consumer\.py:\d+", headers[h.ERROR_LOCATION])
                if keep:
                    assert "in fail" in headers[h.ERROR_STACK]
                    assert headers[h.ERROR_STACK].endswith("ValueError: x\n")
                assert len(headers[h.FINGERPRINT]) == 16

    asyncio.run(scenario())


# -- starting


def test_a_topology_that_was_never_applied_is_named_with_the_command(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        compiled = topology({"orders": (50,)}, vhost=vhost.vhost)
        consumer = Consumer(Topology(compiled=compiled), vhost.url)
        consumer.add_handler("orders", act)
        with pytest.raises(NotAppliedError, match="queue orders is missing") as refused:
            await consumer.start()
        assert refused.value.hint == "amqpflow apply shop.yaml"
        assert refused.value.exit_code == 4

    asyncio.run(scenario())


def test_a_topology_of_which_a_part_is_missing_is_not_consumed(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            scene.delete("exchanges", RETRY)
            with pytest.raises(NotAppliedError, match=r"exchange shop\.retry is missing") as refused:
                await scene.consumer(orders=act).start()
            assert "orders is" not in str(refused.value)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_consumer_may_wait_for_its_topology(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            scene.delete("queues", "orders")
            consumer = scene.consumer(orders=act)
            consumer.wait_for_topology = 60
            starting = asyncio.create_task(consumer.start())
            await asyncio.sleep(0.2)
            assert not starting.done()
            await scene.declare()
            await starting
            assert consumer.healthy
            await consumer.stop()

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_consumer_can_be_started_again(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:

            def in_thread(message: Message) -> None:
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=in_thread)
            for number in range(2):
                async with consumer:
                    await scene.publish(f"m{number}")
                    await until(lambda number=number: len(scene.done) > number)  # type: ignore[misc]
                assert not consumer.healthy
            assert await scene.account() == Counter(["m0", "m1"])

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_consumer_that_is_asked_to_stop_before_it_has_started_stops(vhost: BrokerAddress) -> None:
    """A signal may come between the handler of signals and the start."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            consumer = scene.consumer(orders=act)
            consumer.stop_soon()
            await asyncio.wait_for(consumer.serve(), 30)
            assert consumer.totals["received"] == 0
            await consumer.start()
            assert not consumer.stopping, "that was for the run before"
            await consumer.stop()

    asyncio.run(scenario())


# -- going round


def test_a_retry_past_the_longest_tier_is_not_handled_before_it_is_due(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (100,)}) as scene:
            times: list[int] = []

            async def handle(message: Message) -> None:
                times.append(time.time_ns() // 1_000_000)  # whole ms of the clock by which it becomes due
                if message.attempt == 1:
                    raise Retry(after=1.5)  # many rounds: of a machine that is slow at least one is seen
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            async with consumer:
                await scene.publish("m")
                await scene.all_settled(["m"])
            assert times[1] - times[0] >= 1500
            assert consumer.totals["retried"] == 1
            assert consumer.totals["postponed"] >= 1
            assert len(times) == 2

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_key_that_is_without_a_queue_for_a_moment_parks_nothing(vhost: BrokerAddress) -> None:
    """As when an apply replaces the longest retry queue: its key is unbound from one before it is bound to another."""
    attempts: list[int] = []

    async def handle(message: Message) -> None:
        attempts.append(message.attempt)
        if message.attempt == 1:
            raise Retry

    async def scenario() -> None:
        async with shop(vhost, {"orders": [100]}) as opened:
            consumer, tier, tries = opened.consumer(orders=handle), "orders.retry.100ms", 0

            def on_step(step: str) -> None:
                nonlocal tries
                tries += step == "publish.before"
                if step == "publish.before" and tries == 2:
                    path = ("bindings", vhost.vhost, "e", RETRY, "q", tier)
                    opened.management.call("POST", *path, body={"routing_key": tier})

            consumer._on_step = on_step
            async with consumer:
                opened.unbind(RETRY, tier)
                await opened.publish("m1")
                await until(lambda: len(attempts) == 2)
            assert await opened.depth("orders.parking") == 0
            assert tries == 2

    asyncio.run(scenario())
    assert attempts == [1, 2]
