"""A message on the wire: a delivery and a publish of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .content_header import ContentHeader
from .fast_dataclass import fast_init
from .headers import HOP
from .properties import Properties
from .record import as_text
from .wire import encode_content_header
from .wire_decode import decode_content_header


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One delivery of a message to a consumer, exactly as it arrived."""

    queue: str  #: the queue it was consumed from
    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    header: ContentHeader
    body: bytes

    @property
    def size(self) -> int:
        """Bytes of its properties and its body."""
        return len(self.header.payload) + len(self.body)

    @property
    def properties(self) -> Properties:
        """Its properties, decoded when they are first asked for. Raises ValueError: they cannot be read."""
        return self.header.properties

    @property
    def headers(self) -> Mapping[str, Any]:
        """Its headers, each decoded when it is first asked for. Raises ValueError: they cannot be read."""
        return self.header.headers


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """A message to be published mandatory and confirmed, its properties encoded."""

    exchange: str
    routing_key: str
    header: bytes  #: the content header's payload
    body: bytes
    identity: str
    """The hop in its headers, else its message id: a return names no publish. "" makes a return count for all of its
    address."""

    @classmethod
    def of(cls, *, exchange: str, routing_key: str, properties: Properties, body: bytes) -> Publish:
        """Encode one. Raises ValueError without a hop and a message id; TypeError, ValueError as `encode_table`."""
        identity = identity_of(properties)
        if not identity:
            raise ValueError("a message without a hop header needs a message id: its return could not be recognised")
        header = encode_content_header(properties, len(body))
        return cls(exchange=exchange, routing_key=routing_key, header=header, body=body, identity=identity)

    @property
    def returned_as(self) -> tuple[str, str, str]:
        """What the broker's return of it names. Two publishes with equal values must not be outstanding together."""
        return self.exchange, self.routing_key, self.identity

    @property
    def properties(self) -> Properties:
        """The properties in `header`, decoded each time."""
        return decode_content_header(self.header)


def identity_of(properties: Properties) -> str:
    """Return the hop in a message's headers, else its message id, else ""."""
    hop = as_text(properties.headers.get(HOP)) if properties.headers else None
    return hop or properties.message_id or ""
