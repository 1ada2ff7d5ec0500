"""The messages of a soak: what each does to the consumer, and where it has to be in the end."""

from __future__ import annotations

import gzip
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

QUORUM, CLASSIC, THREADS, NATIVE = "soak.quorum", "soak.classic", "soak.threads", "soak.native"
TOPOLOGY = """\
version: 1
name: soak
vhost: soak
retry_policies:
  quick: {{delays: [500ms, 1s, 2s], on: [{{errors: [ValueError], park: invalid}}]}}
{policies}
defaults: {{retry: quick}}
queues:
  soak.quorum: {{}}
  soak.threads: {{}}
  soak.classic: {{type: classic}}
{queues}
"""
NATIVE_POLICY = (
    "  delayed: {engine: native, delay: {min: 500ms, max: 2s}, retries: 3, on: [{errors: [ValueError], park: invalid}]}"
)

#: kind -> reason for which it has to be parked; None: its handler has to finish with it
EXPECTED: Mapping[str, str | None] = {
    "ok": None,
    "retry": None,
    "hang": None,
    "stuck": None,
    "exit": None,
    "block": None,
    "forged": None,
    "park": "parked",
    "exhaust": "exhausted",
    "long": "exhausted",
    "group": "permanent",
    "wrong": "bad-result",
    "bomb": "undecodable",
    "killer": "crashed",
}
#: of a thousand messages; the others come with the faults
MIX = {"ok": 870, "retry": 60, "hang": 10, "park": 15, "exhaust": 15, "group": 15, "wrong": 10, "long": 5}
SHARES = {QUORUM: 5, CLASSIC: 3, THREADS: 1, NATIVE: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message to publish."""

    id: str
    queue: str
    body: bytes = b"{}"
    headers: Mapping[str, Any] | None = None
    content_encoding: str | None = None


def kind_of(message_id: str) -> str:
    """Return the kind that a message id begins with: `retry-17` is a `retry`."""
    return message_id.partition("-")[0]


def topology(*, native: bool) -> str:
    """Return the topology file, with RabbitMQ's own delayed retries where the release has them."""
    return TOPOLOGY.format(
        policies=NATIVE_POLICY if native else "", queues="  soak.native: {retry: delayed}" if native else ""
    )


def usual(chance: random.Random, number: int, queues: Sequence[str]) -> Sent:
    """Return the next message of the steady load."""
    kind = chance.choices(list(MIX), list(MIX.values()))[0]
    queue = chance.choices(queues, [SHARES[each] for each in queues])[0]
    return Sent(id=f"{kind}-{number}", queue=queue)


def bomb(number: int, queue: str) -> Sent:
    """Return a body that inflates to 128 MiB, or one of 1 MiB that a decompressor copies for each of its members."""
    return Sent(id=f"bomb-{number}", queue=queue, body=_bombs()[number % 2], content_encoding="gzip")


@cache
def _bombs() -> tuple[bytes, bytes]:
    """Made once, since it takes a second of the machine that is measured."""
    many_members = gzip.compress(b"") * 999 + b"\x1f\x8b" + b"A" * (1024 * 1024)
    return many_members, gzip.compress(bytes(128 * 1024 * 1024), 9)


def forged(number: int, queue: str) -> Sent:
    """Return a message with headers that look like ours."""
    ours: Sequence[Mapping[str, Any]] = (
        {"attempt": 1, "hop": f"forged-{number}/0/1", "failed-at": 1, "due-at": 2**53 - 1},
        {"attempt": -5, "hop": "/" * 200, "history": ["x", 1, None]},
        {"attempt": 2, "original": {"expiration": "x", "CC": 7}, "first-failed-at": -(2**62)},
        {"attempt": "x", "reason": "exhausted", "replay": {"id": 1}, "due-at": "soon"},
    )
    headers = {f"x-amqpflow-{name}": value for name, value in ours[number % len(ours)].items()}
    return Sent(id=f"forged-{number}", queue=queue, headers={"x-amqpflow-queue": queue, **headers})
