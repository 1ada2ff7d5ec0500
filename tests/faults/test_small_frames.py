"""A broker with the smallest frames that AMQP allows: a record says what failed and where, and every copy is taken."""

from __future__ import annotations

import asyncio

from amqpflow import Consumer, Message, Topology
from amqpflow.model import headers as h
from amqpflow.model.wire import encode_table
from tests.brokers.own_node import OwnNode
from tests.shop import shop

FRAME = 4096
CONFIGURATION = f"frame_max = {FRAME}"  # of `node`


def descend(levels: int) -> None:
    if levels:
        climb(levels - 1)
    raise KeyError("the gateway did not answer " * 20)


def climb(levels: int) -> None:
    descend(levels)


async def fail(message: Message) -> None:
    descend(100)


def test_a_record_is_as_whole_as_a_small_frame_allows(node: OwnNode) -> None:
    async def scenario() -> None:
        async with shop(node.address, {"orders": (50, 100)}) as scene:
            assert scene.connection.frame_max == FRAME
            consumer = Consumer(Topology(compiled=scene.compiled), node.address.url, keep_stack=True)
            consumer.add_handler("orders", fail)
            async with consumer:
                await scene.publish("m", headers={"tenant": "x" * 200})
                parked = await scene.take_one("orders.parking")
        headers = parked.header.properties.headers or {}
        assert (headers[h.ATTEMPT], headers[h.REASON], headers[h.ERROR_TYPE]) == (3, "exhausted", "KeyError")
        assert headers[h.ERROR_MESSAGE] == repr("the gateway did not answer " * 20)
        assert headers[h.ERROR_LOCATION].startswith("tests/faults/test_small_frames.py:")
        assert headers[h.ERROR_STACK].endswith(f"KeyError: {headers[h.ERROR_MESSAGE]}\n")
        size = len(encode_table(dict(headers)))
        assert FRAME - 1024 - 200 < size < FRAME, "filled, but for what the broker adds"

    asyncio.run(scenario())
