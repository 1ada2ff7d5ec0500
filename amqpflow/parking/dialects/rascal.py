"""rascal (Node.js): the header `rascal`, a table that its recovery strategies republish and forward write.

https://github.com/onebeyond/rascal, `lib/amqp/SubscriberError.js`: `originalQueue` (which may be qualified by the
virtual host: `/orders`), `originalExchange`, `originalRoutingKey`, `error.message`, `error.code`, and
`recovery.QUEUE.republished`; before version 2 the last was `QUEUE.republished`.
"""

from __future__ import annotations

from amqpflow.model.message import Delivery
from amqpflow.model.record import as_text
from amqpflow.parking.foreign import Foreign, count, headers_of, table, text


def read(delivery: Delivery) -> Foreign | None:
    """Read the message if rascal republished or forwarded it because of an error."""
    rascal = table(headers_of(delivery).get("rascal"))
    error = table(rascal.get("error"))
    if not error and "recovery" not in rascal:
        return None
    qualified = text(rascal, "originalQueue")
    recovery = table(rascal.get("recovery")) or rascal
    done = table(recovery.get(qualified)) if qualified else {}
    return Foreign(
        dialect="rascal",
        queue=qualified.rsplit("/", 1)[-1] or None if qualified else None,
        exchange=as_text(rascal.get("originalExchange")),
        routing_key=as_text(rascal.get("originalRoutingKey")),
        error_type=text(error, "code"),
        error_message=text(error, "message"),
        attempts=(count(done.get("republished")) or 0) + 1,
    )
