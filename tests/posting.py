"""Publish on an `Outbox` and await what becomes of the message."""

from __future__ import annotations

import asyncio

from amqpflow.errors import AmqpflowError
from amqpflow.model.message import Publish
from amqpflow.services.publishing.outbox import Outbox


def posted(outbox: Outbox, message: Publish) -> asyncio.Future[None]:
    """Return a future of the confirm; it raises what `post` reports."""
    confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settled(error: AmqpflowError | None) -> None:
        if confirm.done():
            return
        if error is None:
            confirm.set_result(None)
        else:
            confirm.set_exception(error)

    outbox.post(message, settled)
    return confirm
