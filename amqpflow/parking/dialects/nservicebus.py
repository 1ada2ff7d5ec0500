"""NServiceBus: messages in its error queue.

https://docs.particular.net/nservicebus/messaging/headers (error forwarding headers): `NServiceBus.FailedQ` is the
queue, `NServiceBus.TimeOfFailure` is written as `yyyy-MM-dd HH:mm:ss:ffffff Z`, `NServiceBus.ExceptionInfo.*` tells
of the exception. `NServiceBus.Retries` counts delayed retries; immediate ones are not written.
"""

from __future__ import annotations

from amqpflow.model.message import Delivery
from amqpflow.parking.foreign import Foreign, count, headers_of, moment, queue_in_address, text

_EXCEPTION = "NServiceBus.ExceptionInfo."


def read(delivery: Delivery) -> Foreign | None:
    """Read the message if NServiceBus sent it to an error queue."""
    headers = headers_of(delivery)
    if "NServiceBus.FailedQ" not in headers:
        return None
    retries = count(headers.get("NServiceBus.Retries"))
    return Foreign(
        dialect="nservicebus",
        queue=queue_in_address(text(headers, "NServiceBus.FailedQ")),
        error_type=text(headers, _EXCEPTION + "ExceptionType"),
        error_message=text(headers, _EXCEPTION + "Message"),
        error_stack=text(headers, _EXCEPTION + "StackTrace"),
        attempts=(retries or 0) + 1,
        failed_at=moment(headers.get("NServiceBus.TimeOfFailure")),
    )
