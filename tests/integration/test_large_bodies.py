"""Encoded bodies that are large: undone in a thread, for the handler and for the key of `order_by`."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Callable
from typing import Any

import pytest

from amqpflow import Message
from amqpflow.model.decompression import LARGE
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.handling import message as incoming
from tests.shop import shop
from tests.waiting import until

pytestmark = pytest.mark.one_broker

BALLAST = gzip.compress(b"") * 999 + b"\x1f\x8b" + b"A" * (4 << 20)


@pytest.fixture
def undone_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The size of each body that was undone, and the thread that did it."""
    found: list[tuple[int, int]] = []

    def noting(body: bytes, encoding: str | None, limit: int) -> bytes:
        found.append((len(body), threading.get_ident()))
        return real(body, encoding, limit)

    real = incoming.decompress
    monkeypatch.setattr(incoming, "decompress", noting)
    return found


def key(message: Message) -> Any:
    return message.json()["customer"]


@pytest.mark.parametrize("order_by", [None, key])
@pytest.mark.parametrize("in_a_thread", [False, True])
def test_the_event_loop_undoes_small_bodies_alone(
    vhost: BrokerAddress,
    undone_in: list[tuple[int, int]],
    order_by: Callable[[Message], Any] | None,
    in_a_thread: bool,
) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": ()}) as scene:
            handled: list[tuple[str, int]] = []

            def note(message: Message) -> None:
                handled.append((str(message.message_id), len(message.json()["text"])))

            async def handle(message: Message) -> None:
                note(message)

            large = gzip.compress(b'{"customer": 1, "text": "%s"}' % (b"x" * (16 << 20)))
            small = gzip.compress(b'{"customer": 1, "text": "small"}')
            assert len(small) < LARGE < len(large)
            await scene.publish("large1", body=large, content_encoding="gzip")
            await scene.publish("small1", body=small, content_encoding="gzip")
            await scene.publish("hostile", body=BALLAST, content_encoding="gzip")
            await scene.publish("large2", body=large, content_encoding="gzip")
            await scene.publish("small2", body=small, content_encoding="gzip")
            consumer = scene.consumer()
            consumer.add_handler(
                "orders", note if in_a_thread else handle, concurrency=5, prefetch=10, order_by=order_by
            )
            async with consumer:
                await until(lambda: consumer.totals["acked"] == 4 and consumer.totals["parked"] == 1)
            parked = await scene.take_one("orders.parking")
            assert parked.header.properties.headers["x-amqpflow-reason"] == "undecodable"
            expected = [("large1", 16 << 20), ("small1", 5), ("large2", 16 << 20), ("small2", 5)]
            assert (handled if order_by else sorted(handled)) == (expected if order_by else sorted(expected))
            loop = threading.get_ident()
            assert {size for size, where in undone_in if where == loop} <= {len(small)}
            assert {size for size, _ in undone_in} == {len(small), len(large), len(BALLAST)}

    asyncio.run(scenario())
