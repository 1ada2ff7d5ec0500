"""The identity of a parked message among all that may exist at the same time.

A message has no identity of its own on a broker: a message id may be used twice, and one event that went to several
queues has one id in all of them. So a message is known by all of it, byte for byte, by the queue it is parked in, and
by where it goes. Messages that are equal in all of that are counted, and cannot be told apart.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2b

from amqpflow.model.content_header import ContentHeader
from amqpflow.model.headers import COUNTERS
from amqpflow.model.message import Delivery

DIGEST_SIZE = 16  #: bytes
_LENGTH = struct.Struct(">I")
_READABLE, _UNREADABLE = b"\0", b"\1"


def content_digest(header: ContentHeader, body: bytes) -> bytes:
    """Hash every property, every header and the body.

    Nothing is decoded. What changes between two looks at one message is left out: the broker's counters of deliveries,
    and the order of headers, which RabbitMQ 3 sorts when a quorum queue delivers a message again. Each part is hashed
    behind its length, so that no two messages can be equal by how they are put together.
    """
    try:
        kind, properties = _READABLE, header.canonical(without=COUNTERS)
    except ValueError:
        kind, properties = _UNREADABLE, header.payload
    hashed = blake2b(b"".join((kind, _LENGTH.pack(len(properties)), properties)), digest_size=DIGEST_SIZE)
    hashed.update(body)
    return hashed.digest()


def parked_digest(delivery: Delivery, content: bytes | None = None) -> bytes:
    """Hash a message, the parking queue that it is in, and the exchange and routing key as delivered: all that a
    journal knows it by. `content` is its `content_digest`, where that is known.
    """
    where = digest_of_text(delivery.queue, delivery.exchange, delivery.routing_key, size=DIGEST_SIZE)
    content = content or content_digest(delivery.header, delivery.body)
    return blake2b(where + content, digest_size=DIGEST_SIZE).digest()


@lru_cache(maxsize=256)
def digest_of_text(*parts: str, size: int) -> bytes:
    """Hash names, each behind its length, to `size` bytes."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return blake2b(b"".join([_LENGTH.pack(len(each)) + each for each in encoded]), digest_size=size).digest()
