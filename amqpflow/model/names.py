"""Names that both RabbitMQ and aio-pika can address."""

from __future__ import annotations

import re
from hashlib import blake2b

MAX_NAME_BYTES = 255
"""A queue or exchange name is an AMQP short string (fact of the protocol: at most 255 bytes)."""

ADDRESSABLE = r"[a-zA-Z0-9\-_.:@#,/+ ]"
"""A regular expression for one character of a name that aio-pika can send."""

_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}]")
_ADDRESSABLE = re.compile(f"{ADDRESSABLE}*", re.ASCII)


def name_problem(name: str) -> str | None:
    """Say why a queue or exchange cannot have this name; None when it can.

    RabbitMQ takes any UTF-8, but silently strips CR and LF, and aio-pika's codec refuses what is not `ADDRESSABLE`.
    """
    if not name:
        return "the name is empty, which means the default exchange or a server-named queue"
    if name.startswith("amq."):
        return "names starting with amq. are reserved by RabbitMQ"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"the name is {len(name.encode())} bytes long, RabbitMQ allows {MAX_NAME_BYTES}"
    if not _ADDRESSABLE.fullmatch(name):
        bad = next(character for character in name if not _ADDRESSABLE.fullmatch(character))
        return f"the name contains {bad!r}; allowed are letters, digits, space and - _ . : @ # , / +"
    return None


def escape(name: str) -> str:
    """Escape a name for a regular expression of RabbitMQ's, in a policy or a permission."""
    return _SPECIAL.sub(lambda match: "\\" + match[0], name)


def beside(queue: str, suffix: str) -> str:
    """Name a queue that stands beside another: its name and a suffix, shortened by a hash when that is too long."""
    name = queue + suffix
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    return f"{queue[:200]}-{blake2b(queue.encode(), digest_size=8).hexdigest()}{suffix}"


def reading_lock(queue: str) -> str:
    """Name the exclusive queue that stands for reading a parking queue, see `amqpflow.services.reading.lock`."""
    return beside(queue, ".reading")


def applying_lock(topology: str) -> str:
    """Name the exclusive queue that stands for changing a topology, see `amqpflow.services.provisioning.apply_lock`."""
    return f"amqpflow.lock.{topology}"  # a topology's name has at most 64 characters
