"""Dramatiq: messages in `NAME.XQ`, where its broker lets what failed for good be dead-lettered.

https://dramatiq.io/advanced.html#dead-letter-queues. The message is JSON; for each retry the Retries middleware writes
`retries` and the `traceback` of the failure before it into its `options`, and `queue_name` is where it belongs.
"""

from __future__ import annotations

import json

from amqpflow.model.message import Delivery
from amqpflow.parking.foreign import Foreign, count, table, text

_SUFFIXES = (".XQ", ".DQ")  # dead messages; delayed ones, which lie in the memory of a worker
_LARGEST = 1024 * 1024


def read(delivery: Delivery) -> Foreign | None:
    """Read the message if it is one of Dramatiq's in one of its dead-letter queues."""
    if not delivery.queue.endswith(".XQ") or len(delivery.body) > _LARGEST:
        return None
    try:
        message = table(json.loads(delivery.body))
    except (ValueError, RecursionError):
        return None
    options = table(message.get("options"))
    if "actor_name" not in message or "queue_name" not in message:
        return None
    queue = text(message, "queue_name") or delivery.queue
    for suffix in _SUFFIXES:
        queue = queue.removesuffix(suffix)
    trace = text(options, "traceback")
    last = trace.strip().rsplit("\n", 1)[-1] if trace else ""
    error, _, said = last.partition(":")
    return Foreign(
        dialect="dramatiq",
        queue=queue,
        exchange="",
        routing_key=queue,
        error_type=error.strip() if error and " " not in error.strip() else None,
        error_message=said.strip() or None,
        error_stack=trace,
        # what is dead is the message of the last retry, rejected: the failure after it is not counted in its options
        attempts=(count(options.get("retries")) or 0) + 1,
    )
