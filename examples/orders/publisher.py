"""Publishes seven orders: three good ones, one for which the gateway is slow, and three that cannot be charged."""

import asyncio
import json
import sys
from pathlib import Path

from amqpflow import OutgoingMessage, Publisher

ORDERS = {
    "order-1": {"total": 25, "currency": "EUR"},
    "order-2": {"total": 90, "currency": "USD"},
    "order-3": {"total": 12, "currency": "EUR"},
    "order-4": {"total": 40, "currency": "EUR", "gateway_is_down_for": 1},  # attempts that time out
    "order-5": {"total": -3, "currency": "EUR"},
    "order-6": {"total": 70, "currency": "CHF"},
}


def message(message_id: str, body: bytes) -> OutgoingMessage:
    return OutgoingMessage(
        body=body,
        exchange="orders.events",
        routing_key="order.placed",
        message_id=message_id,  # one that the order determines: publishing it twice can then be recognised
        content_type="application/json",
    )


async def main() -> int:
    messages = [message(order_id, json.dumps(order).encode()) for order_id, order in ORDERS.items()]
    messages.append(message("order-7", b"this is not JSON"))
    async with Publisher(topology=Path(__file__).with_name("topology.yaml")) as publisher:
        results = await publisher.publish_many(messages)
    for sent, result in zip(messages, results, strict=True):
        failed = isinstance(result, Exception)
        print(f"{sent.message_id}: {f'NOT published: {result}' if failed else 'published'}")
    return int(any(isinstance(result, Exception) for result in results))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
