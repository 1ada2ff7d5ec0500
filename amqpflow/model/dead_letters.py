"""The policy of a queue whose dead letters its application directs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LENGTHS = frozenset({"max-length", "max-length-bytes"})


def parks(definition: Mapping[str, Any], parking_queue: str) -> bool:
    """Return whether a policy sends what RabbitMQ gives up on to a parking queue."""
    return (definition.get("dead-letter-exchange"), definition.get("dead-letter-routing-key")) == ("", parking_queue)


def dead_letters_kept(definition: Mapping[str, Any], *, parking_queue: str, limit_said: bool) -> dict[str, Any]:
    """
    Return a policy definition without our keys that decide where dead letters go.

    Keys that lead elsewhere are the application's, which the file carries. A delivery limit that the file does not ask
    for (`limit_said`) would send messages where the application does not expect them.
    """
    ours = parks(definition, parking_queue)
    kept = {key: value for key, value in definition.items() if not (ours and key.startswith("dead-letter-"))}
    if not limit_said:
        kept.pop("delivery-limit", None)
    if not kept.keys() & _LENGTHS:
        kept.pop("overflow", None)  # it was for at-least-once dead-lettering to parking
    return kept
