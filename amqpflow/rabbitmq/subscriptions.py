"""The consumers of one channel: which of them a delivery is for, and what is reported to them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Delivery

log = logging.getLogger("amqpflow.channel")


@dataclass(slots=True)
class _Subscription:
    queue: str
    on_delivery: Callable[[Delivery], None]
    on_cancel: Callable[[], None]
    tags_from: int


class Subscriptions:
    """The consumers by tag. `arrived` is called with the delivery tag of every delivery, of all consumers."""

    def __init__(self, arrived: Callable[[int], None]) -> None:
        self._arrived = arrived
        self._subscriptions: dict[str, _Subscription] = {}
        self._ended = False

    def add(
        self,
        tag: str,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        on_cancel: Callable[[], None],
        *,
        tags_from: int,
    ) -> None:
        """Add a consumer before the broker is asked for it: deliveries may come with its answer."""
        self._subscriptions[tag] = _Subscription(queue, on_delivery, on_cancel, tags_from)

    def remove(self, tag: str) -> None:
        """Remove a consumer after the broker's answer to a cancel."""
        self._subscriptions.pop(tag, None)

    def end(self) -> None:
        """Drop all consumers, since the channel is closed or about to be: what still arrives is not handed on."""
        self._ended = True
        self._subscriptions.clear()

    def delivered(
        self,
        consumer_tag: str,
        delivery_tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        header: bytes,
        body: bytes,
    ) -> None:
        """Hand a delivery to its consumer. Never raises: that would end the reader of the whole connection."""
        if self._ended:
            return  # it goes back to its queue when the broker has read the close
        self._arrived(delivery_tag)
        subscription = self._subscriptions.get(consumer_tag)
        if subscription is None:
            log.error("a delivery for the unknown consumer %s stays unacked", consumer_tag)
            return
        delivery = Delivery(
            queue=subscription.queue,
            delivery_tag=delivery_tag + subscription.tags_from,
            redelivered=redelivered,
            exchange=exchange,
            routing_key=routing_key,
            header=ContentHeader(header),
            body=body,
        )
        try:
            subscription.on_delivery(delivery)
        except Exception:
            log.exception("a delivery from %s could not be taken and stays unacked", subscription.queue)

    def cancelled(self, frame: Any) -> None:
        """Handle the server's cancel of a consumer."""
        if (subscription := self._subscriptions.get(frame.consumer_tag)) is not None:
            subscription.on_cancel()
