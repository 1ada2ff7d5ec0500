from __future__ import annotations

import pytest

from amqpflow.delivery.incoming import Incoming
from amqpflow.model import headers as h
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties


@pytest.mark.parametrize(("exchange", "routing_key"), [("news", ""), ("", "orders"), ("events", "order.placed")])
def test_exchange_and_routing_key_are_shown_as_first_published_when_they_are_empty_too(
    exchange: str, routing_key: str
) -> None:
    """A fanout exchange is published to with an empty routing key; from a tier the message comes with the queue's."""
    record = {h.QUEUE: "orders", h.ATTEMPT: 1, h.EXCHANGE: exchange, h.ROUTING_KEY: routing_key}
    delivery = Delivery(
        queue="orders",
        delivery_tag=1,
        redelivered=False,
        exchange="",
        routing_key="orders",
        header=ContentHeader.of(Properties(headers=record)),
        body=b"",
    )
    incoming = Incoming(delivery)
    assert (incoming.exchange, incoming.routing_key) == (exchange, routing_key)
