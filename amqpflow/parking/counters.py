"""Which counters of their own consumers find on a message, and which a replay does not reset.

A replay starts our own count again. A consumer that counts in a header or in the body goes by that instead, and may
give a replayed message up at its first failure.
"""

from __future__ import annotations

from collections.abc import Mapping

from .parked import ParkedMessage

_HEADERS: Mapping[str, str] = {
    "retries": "retries",  # Celery
    "laravel": "laravel.attempts",
    "MT-Redelivery-Count": "MT-Redelivery-Count",
    "NServiceBus.Retries": "NServiceBus.Retries",
    "rascal": "rascal.recovery",
    "HandledCount": "HandledCount",  # Brighter
    "x-failed-attempts": "x-failed-attempts",  # Silverback
    **dict.fromkeys(("x-retry-count", "x-retries", "x-retry", "retry-count", "retry_count"), ""),
    **dict.fromkeys(("x-attempts", "x-attempt", "x-delivery-attempts", "attempts"), ""),
}


def own_counters(parked: ParkedMessage) -> tuple[str, ...]:
    """Return the names of the headers and body fields in which consumers count attempts of this message."""
    headers = parked.delivery.properties.headers or {}
    found = [label or name for name, label in _HEADERS.items() if name in headers]
    if parked.dialect is not None and parked.dialect.dialect == "dramatiq":
        found.append("options.retries in the body")
    return tuple(found)
