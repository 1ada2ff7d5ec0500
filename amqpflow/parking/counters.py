"""Counters that consumers keep in the message, which a replay does not reset.

A replay starts our own count again. A consumer that counts in a header or in the body goes by that instead, and may
give a replayed message up at its first failure.
"""

from __future__ import annotations

from collections.abc import Mapping

from .dialects.folk import ATTEMPTS, RETRIES
from .parked import ParkedMessage

#: header -> the counter's name, which docs/how-to/replay.md lists
HEADERS: Mapping[str, str] = {
    "laravel": "laravel.attempts",
    "MT-Redelivery-Count": "MT-Redelivery-Count",
    "NServiceBus.Retries": "NServiceBus.Retries",
    "rascal": "rascal.recovery",
    "HandledCount": "HandledCount",  # Brighter
    "x-failed-attempts": "x-failed-attempts",  # Silverback
    **{name: name for name in (*RETRIES, *ATTEMPTS)},  # hand-written; retries: Celery
}
IN_BODY = "options.retries in the body"  #: Dramatiq's


def own_counters(parked: ParkedMessage) -> tuple[str, ...]:
    """Return the names of the headers and body fields in which consumers count attempts of this message."""
    headers = parked.delivery.properties.headers or {}
    found = [label for name, label in HEADERS.items() if name in headers]
    if parked.dialect is not None and parked.dialect.dialect == "dramatiq":
        found.append(IN_BODY)
    return tuple(found)
