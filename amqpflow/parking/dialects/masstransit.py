"""MassTransit: messages in `NAME_error` and `NAME_skipped`.

https://masstransit.io/documentation/concepts/exceptions, and `MessageHeaders.cs` of the project: `MT-Reason` is `fault`
or `dead-letter`; a fault has `MT-Fault-ExceptionType`, `-Message`, `-StackTrace`, `-Timestamp`, `-InputAddress`,
`-RetryCount` (retries after the first attempt; absent for none) and `-RedeliveryCount`.
"""

from __future__ import annotations

from amqpflow.model.message import Delivery
from amqpflow.parking.foreign import Foreign, count, headers_of, moment, queue_in_address, text

_SUFFIXES = ("_error", "_skipped")


def read(delivery: Delivery) -> Foreign | None:
    """Read the message if MassTransit moved it."""
    headers = headers_of(delivery)
    if "MT-Reason" not in headers and "MT-Fault-ExceptionType" not in headers:
        return None
    skipped = text(headers, "MT-Reason") == "dead-letter"
    queue = queue_in_address(text(headers, "MT-Fault-InputAddress"))
    for suffix in _SUFFIXES:
        if queue is None and delivery.queue.endswith(suffix):
            queue = delivery.queue.removesuffix(suffix)
    retries = (count(headers.get("MT-Fault-RetryCount")) or 0) + (count(headers.get("MT-Fault-RedeliveryCount")) or 0)
    return Foreign(
        dialect="masstransit",
        queue=queue,
        error_type=text(headers, "MT-Fault-ExceptionType"),
        error_message="no consumer for this type of message" if skipped else text(headers, "MT-Fault-Message"),
        error_stack=text(headers, "MT-Fault-StackTrace"),
        attempts=0 if skipped else retries + 1,
        failed_at=moment(headers.get("MT-Fault-Timestamp")),
    )
