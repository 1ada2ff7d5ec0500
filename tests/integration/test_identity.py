"""A parked message is the same at each look, whatever the broker does to its headers in between."""

from __future__ import annotations

import asyncio
import struct
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Delivery, Publish
from amqpflow.model.properties import Properties
from amqpflow.model.wire import length_prefixed
from amqpflow.parking.identity import parked_digest
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect

HEADERS = {
    "z": "last",
    "nested": {"y": 2, "x": {"b": 1, "a": [True, None, {"d": 1, "c": 2}]}},
    "float": 0.1,
    "decimal": Decimal("1.50"),
    "when": datetime(2026, 11, 1, tzinfo=UTC),
    "bytes": bytearray(b"\xff\x00"),
    "big": 1 << 40,
    "a": [3, 2, 1],
}
TYPES = b"\x01bb\xff\x01ss\x00\x01\x01BB\xff\x01uu\x00\x02\x01ii\x00\x00\x00\x03\x01II\x00\x00\x00\x04"


def raw(entries: bytes) -> bytes:
    return struct.pack(">HHQH", 60, 0, 2, 1 << 13 | 1 << 12) + length_prefixed(entries) + b"\x02"


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_a_message_has_one_digest_however_often_it_is_given_back(vhost: BrokerAddress, kind: str) -> None:
    everything = Properties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers=HEADERS,
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        message_id="m",
        timestamp=datetime(2026, 11, 1, tzinfo=UTC),
        type="t",
        app_id="a",
        cluster_id="k",
    )
    headers = [
        ContentHeader.of(everything, 2).payload,
        ContentHeader.of(Properties(delivery_mode=2), 2).payload,
        ContentHeader.of(Properties(delivery_mode=2, headers={}), 2).payload,
        ContentHeader.of(Properties(delivery_mode=2, headers={"x-delivery-count": 7}), 2).payload,
        raw(TYPES),
    ]

    async def go() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            admin = await connection.admin_channel()
            await admin.queue_declare("parking", durable=True, arguments={"x-queue-type": kind})
            channel = await connection.open_channel()
            for number, header in enumerate(headers):
                await channel.publish(
                    Publish(exchange="", routing_key="parking", header=header, body=b"{}", identity=str(number))
                )
            await channel.close()
            looks: list[list[bytes]] = []
            for _ in range(4):
                channel = await connection.open_channel()
                arrived: list[Delivery] = []
                all_here = asyncio.Event()

                def take(delivery: Delivery, arrived: list[Delivery] = arrived, here: asyncio.Event = all_here) -> None:
                    arrived.append(delivery)
                    if len(arrived) == len(headers):
                        here.set()

                await channel.consume("parking", take, prefetch=100, on_cancel=lambda: None)
                async with asyncio.timeout(30):
                    await all_here.wait()
                looks.append([parked_digest(each) for each in arrived])
                await channel.close()
            assert all(look == looks[0] for look in looks)
            # no headers, an empty table of them, and a counter alone are one to a queue that counts deliveries
            assert len(set(looks[0])) == 3

    asyncio.run(go())
