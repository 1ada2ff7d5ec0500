"""Charges placed orders. Run it with `amqpflow run service:consumer`."""

import os
from pathlib import Path

from amqpflow import Consumer, Message, Park

CURRENCIES = os.environ.get("CURRENCIES", "EUR USD").split()

consumer = Consumer(Path(__file__).with_name("topology.yaml"))  # the broker is in AMQPFLOW_URL


@consumer.handler("orders.payment", concurrency=10, timeout=30)
async def charge(message: Message) -> None:
    order = message.json()  # not JSON: parked as undecodable
    if order["total"] <= 0:
        raise ValueError(f"total is {order['total']}")  # the topology parks ValueError
    if order["currency"] not in CURRENCIES:
        raise Park(f"no account for {order['currency']}")
    await call_gateway(order, message)  # a TimeoutError is retried after 1 s, 5 s and 30 s
    print(f"charged {message.message_id} at attempt {message.attempt}", flush=True)


async def call_gateway(order: dict, message: Message) -> None:
    """Stands in for a payment gateway, which gets the message id as its idempotency key.

    A message can be delivered twice (a crash between the payment and the ack); its message id and hop stay the same.
    """
    if message.attempt <= order.get("gateway_is_down_for", 0):
        raise TimeoutError("the payment gateway did not answer")


@consumer.handler("orders.audit")
def audit(message: Message) -> None:
    """Not async, so it runs in a thread. Retries of orders.payment never come here."""
    print(f"noted {message.message_id} ({message.routing_key})", flush=True)
