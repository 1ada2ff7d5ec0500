"""Deliveries, routes and circumstances as values, for tests of what is decided about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import Circumstances, Settlement, ToParking, ToTier, decide
from amqpflow.delivery.verdict import ErrorRecord, Failed, Verdict
from amqpflow.model import headers as h
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Delivery, Publish
from amqpflow.model.properties import Properties
from amqpflow.model.routes import QueueRoutes, RetryRule
from amqpflow.model.wire import encode_content_header
from amqpflow.model.wire_decode import decode_content_header
from tests.topologies import steps

NOW = 1_790_000_000_000
QUEUE = "orders"


def routes(
    *delays: int | Sequence[int], rules: Sequence[RetryRule] = (), give_up_after_ms: int | None = None
) -> QueueRoutes:
    return QueueRoutes(
        queue=QUEUE,
        queue_type="quorum",
        retry_exchange="shop.retry",
        parking_exchange="shop.parking",
        parking_queue="orders.parking",
        steps=steps(QUEUE, delays),
        rules=tuple(rules),
        give_up_after_ms=give_up_after_ms,
    )


def rule(*errors: str, delays: Sequence[int] | None = None, park: str | None = None) -> RetryRule:
    return RetryRule(errors=errors, steps=None if delays is None else steps(QUEUE, delays), park=park)


def at(where: QueueRoutes, **changes: Any) -> Circumstances:
    """The circumstances of a decision; `choice=0.0` takes a step's first tier."""
    usual = Circumstances(
        routes=where, now=NOW, choice=0.0, new_root="new-root", frame_max=131_072, host="host-1", version="1.2.3"
    )
    return replace(usual, **changes)


def delivery(
    headers: Mapping[str, Any] | None = None, *, message_id: str | None = "m", body: bytes = b"{}", **more: Any
) -> Delivery:
    """A first delivery from `orders`."""
    return Delivery(
        queue=QUEUE,
        delivery_tag=1,
        redelivered=False,
        exchange="events",
        routing_key="order.placed",
        header=ContentHeader.of(Properties(message_id=message_id, headers=headers, **more)),
        body=body,
    )


def incoming(headers: Mapping[str, Any] | None = None, **more: Any) -> Incoming:
    return Incoming(delivery(headers, **more))


def retried(attempts: int, **record: Any) -> Incoming:
    """A delivery of a message that has failed so often; `record` holds more headers of ours, by their last word."""
    more = {h.PREFIX + name.replace("_", "-"): value for name, value in record.items()}
    return incoming({h.QUEUE: QUEUE, h.ATTEMPT: attempts, h.FIRST_FAILED_AT: NOW - 1000, **more})


def failed(kind: str = "ValueError", message: str = "no", **more: Any) -> Failed:
    """The handler raised an exception that rules know by this name."""
    return Failed(error=ErrorRecord(type=kind, message=message, **more), matches=frozenset({kind}))


def publish_of(settlement: Settlement | None) -> Publish:
    assert isinstance(settlement, ToTier | ToParking), settlement
    return settlement.publish


def headers_of(settlement: Settlement | None) -> dict[str, Any]:
    headers = publish_of(settlement).properties.headers
    assert headers is not None
    return dict(headers)


def comes_back(publish: Publish, **broker: Any) -> Incoming:
    """The delivery that a tier makes of a copy: over the wire twice, through the default exchange, with an x-death."""
    properties = decode_content_header(encode_content_header(publish.properties, len(publish.body)))
    deaths = [{"queue": publish.routing_key, "reason": "expired", "count": 1, "exchange": publish.exchange}]
    properties = replace(properties, headers={**(properties.headers or {}), "x-death": deaths, **broker})
    return Incoming(
        Delivery(
            queue=QUEUE,
            delivery_tag=2,
            redelivered=True,
            exchange="",
            routing_key=QUEUE,
            header=ContentHeader.of(properties),
            body=publish.body,
        )
    )


def decided(
    what: Incoming, verdict: Verdict, where: QueueRoutes, *, missing: Sequence[str] = (), **changes: Any
) -> Settlement:
    return decide(what, verdict, at(where, **changes), missing=frozenset(missing))
