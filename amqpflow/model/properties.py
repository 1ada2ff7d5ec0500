"""The basic properties of a message, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from .fast_dataclass import fast_init, fast_replace


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """The basic properties of AMQP 0-9-1; None means absent, which is not the same as zero or empty.

    A quorum queue of RabbitMQ 4.3 treats an absent priority as 4 and a written 0 as lowest (fact 12.4), so a copy
    must keep the difference.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] | None = None
    delivery_mode: int | None = None  #: 1 transient, 2 persistent
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None  #: milliseconds, as text
    message_id: str | None = None
    timestamp: datetime | int | None = None  #: a number when the producer sent what no datetime in seconds can hold
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None

    def present(self) -> dict[str, Any]:
        """Return the properties that are set, by name, but for the headers."""
        named = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "headers"}
        return {name: value for name, value in named.items() if value is not None}


replace_properties = fast_replace(Properties)
