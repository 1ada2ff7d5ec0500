"""A promise about a queue that an application declared."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Promise(StrEnum):
    """What may hold on a queue."""

    RETRIES = "retries"
    PARKING = "parking"
    BROKER_PARKS = "parked by RabbitMQ"
    AT_LEAST_ONCE = "at least once"
    NOTHING_EXPIRES = "nothing expires"
    CRASHES_END = "crash loops end"
    SURVIVES = "survives a restart"
    LIMITS = "limits of the file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantee:
    """One promise about one existing queue."""

    queue: str
    name: Promise
    holds: bool | None  #: None: unknown
    why: str
