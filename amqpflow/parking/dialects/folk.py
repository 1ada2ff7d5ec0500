"""The names that hand-written retries use, and those of small libraries.

None of them is specified anywhere; these are the ones met in public code: a count of retries, an error in words, and
the queue or key where the message came from. A count alone marks a message, an origin alone does not.

Such a count also travels on messages that RabbitMQ dead-lettered, and then its account is the stronger mark: Celery
sends `retries` with every task, and rejects the ones it gives up. Only a death in a queue where the message merely
waited for its time says nothing about who parked it, and nothing about where it failed: that is a retry queue. A count
of no retries beside such a death is no mark: what was never retried expired in its own queue.
"""

from __future__ import annotations

from dataclasses import replace

from amqpflow.model.message import Delivery
from amqpflow.model.record import as_text
from amqpflow.parking.foreign import Foreign, count, headers_of, moment, text

from . import dead_letter

RETRIES = ("x-retry-count", "x-retries", "x-retry", "retry-count", "retry_count", "retries")  # after the first attempt
ATTEMPTS = ("x-attempts", "x-attempt", "x-delivery-attempts", "attempts")  # in all
_TYPES = ("x-exception-type", "x-exception-class", "x-error-type", "x-error-class")
_MESSAGES = ("x-error-message", "x-error", "x-exception", "x-exception-message", "x-last-error", "x-failure-reason")
_STACKS = ("x-error-stack", "x-exception-stacktrace", "x-stacktrace", "x-traceback")
_QUEUES = ("x-original-queue", "x-origin-queue", "x-source-queue", "x-failed-queue")
_EXCHANGES = ("x-original-exchange", "x-origin-exchange")
_KEYS = ("x-original-routing-key", "x-original-routingKey", "x-origin-routing-key")
_TIMES = ("x-failed-at", "x-error-timestamp", "x-exception-timestamp", "x-failure-time")


def read(delivery: Delivery) -> Foreign | None:
    """Read the message if it has headers of such names."""
    headers = headers_of(delivery)
    retries = next((each for name in RETRIES if (each := count(headers.get(name))) is not None), None)
    attempts = next((each for name in ATTEMPTS if (each := count(headers.get(name))) is not None), None)
    error, kind = text(headers, *_MESSAGES), text(headers, *_TYPES)
    if retries is None and attempts is None and error is None and kind is None:
        return None
    died, failure = dead_letter.read(delivery), dead_letter.read_failure(delivery)
    if died and not failure and not (retries or attempts or error or kind):
        return None
    exchange = next((as_text(headers[name]) for name in _EXCHANGES if name in headers), None)
    key = text(headers, *_KEYS)
    queue = text(headers, *_QUEUES) or (failure.queue if failure else None)
    found = Foreign(
        dialect="folk",
        queue=queue or (key if exchange == "" else None),
        exchange=exchange if exchange is not None or failure is None else failure.exchange,
        routing_key=key or (failure.routing_key if failure else None),
        error_type=kind,
        error_message=error,
        error_stack=text(headers, *_STACKS),
        attempts=attempts if attempts is not None else (retries or 0) + 1,
        failed_at=next((each for name in _TIMES if (each := moment(headers.get(name))) is not None), None)
        or (died.failed_at if died else None),
    )
    if failure is None or failure != died:
        return found
    counted = found.attempts if attempts is not None or retries is not None else failure.attempts
    return replace(found, dialect=failure.dialect, queue=failure.queue, died_of=failure.died_of, attempts=counted)
