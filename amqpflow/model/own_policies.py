"""The policies that amqpflow writes: exact patterns, chunked so that a new queue changes few of them.

A pattern is a list of names, since one that matched more would displace a foreign policy (fact 11.6b). RabbitMQ
4.3 refuses patterns of more than 1,024 bytes. Where a list is cut depends on the names in it and not on how many there
are, so that adding a queue changes the one policy whose list it joins.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from hashlib import sha256
from typing import Any

from .names import escape
from .resources import Policy

DEFAULT_POLICY_PRIORITY = 10
MAX_PATTERN_BYTES = 1000
LENGTHS = ("max-length", "max-length-bytes")
_CUT_EVERY = 8  # names to a list on average; a power of two


def policies_for(
    topology: str,
    wanted: Mapping[str, tuple[str, Mapping[str, Any]]],
    *,
    alone: Container[str] = (),
    priority: int = DEFAULT_POLICY_PRIORITY,
    shield: bool = False,
) -> dict[str, Policy]:
    """Build the policies, by name, that give each queue its values.

    Each has one queue type and one set of values: a key that one type does not know would switch the whole policy off
    for it (fact 11.6d).

    Args:
        topology: the owner; policy names start with amqpflow.TOPOLOGY.
        wanted: queue name -> its type, and a policy definition that is not empty.
        alone: queues that share their policy with no other, so that what it holds can depend on what is there.
        priority: of all of them.
        shield: they keep foreign policies off, see `is_shield`.
    """
    groups: dict[str, list[str]] = {}
    definitions: dict[str, Mapping[str, Any]] = {}
    for queue, (queue_type, definition) in wanted.items():
        text = json.dumps(definition, sort_keys=True) + (queue if queue in alone else "")
        values = f"{queue_type}{'-shield' if shield else ''}-{_digest(text)}"
        groups.setdefault(values, []).append(queue)
        definitions[values] = dict(sorted(definition.items()))
    made = {}
    for values in sorted(groups):
        for anchor, names in _chunks(groups[values]):
            name = f"amqpflow.{topology}.{values}{anchor}"
            pattern = f"^(?:{'|'.join(map(escape, names))})$"
            # apply_to queues and not quorum_queues, which 3.10 does not know (fact 11.4): the pattern is exact anyway
            made[name] = Policy(
                name=name, pattern=pattern, definition=definitions[values], priority=priority, apply_to="queues"
            )
    return made


def _chunks(names: Iterable[str]) -> Iterable[tuple[str, list[str]]]:
    """Yield lists of names, each with the suffix of its policy's name, which the cut before it decides."""
    most = MAX_PATTERN_BYTES - len("^(?:)$")
    anchor, part, chunk, room = "", 0, list[str](), most
    for name in sorted(names):
        size = len(escape(name)) + 1
        if chunk and room < size:
            yield _end(anchor, part), chunk
            part, chunk, room = part + 1, [], most
        chunk.append(name)
        room -= size
        if int(_digest(name), 16) % _CUT_EVERY == 0:
            yield _end(anchor, part), chunk
            anchor, part, chunk, room = _digest(name), 0, [], most
    if chunk:
        yield _end(anchor, part), chunk


def _end(anchor: str, part: int) -> str:
    return (f".{anchor}" if anchor else "") + (f".{part}" if part else "")


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def parks(definition: Mapping[str, Any], parking_queue: str) -> bool:
    """Return whether a policy sends what RabbitMQ gives up on to a parking queue."""
    return (definition.get("dead-letter-exchange"), definition.get("dead-letter-routing-key")) == ("", parking_queue)


def dead_letters_kept(definition: Mapping[str, Any], *, parking_queue: str, limit_said: bool) -> dict[str, Any]:
    """Return a policy definition without our keys that decide where dead letters go.

    Keys that lead elsewhere are the application's, which the file carries. A delivery limit that the file does not ask
    for (`limit_said`) would send messages where the application does not expect them.
    """
    ours = parks(definition, parking_queue)
    kept = {key: value for key, value in definition.items() if not (ours and key.startswith("dead-letter-"))}
    if not limit_said:
        kept.pop("delivery-limit", None)
    if not kept.keys() & set(LENGTHS):
        kept.pop("overflow", None)  # it was for at-least-once dead-lettering to parking
    return kept
