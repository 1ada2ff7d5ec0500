"""What is ours: told by the stamp among an object's arguments, and by a policy's name, for policies bear no stamp."""

from __future__ import annotations

import re

_AFTER_TOPOLOGY = re.compile(r"\.(classic|quorum)-[0-9a-f]{8}(\.[0-9a-f]{8})?(\.[0-9]+)?", re.ASCII)


def is_own_policy(name: str, topology: str) -> bool:
    """
    Whether a policy of this name was made for this topology.

    The whole name is looked at, so that the topology orders does not claim the policies of orders.eu.
    """
    prefix = f"amqpflow.{topology}"
    return name.startswith(prefix) and _AFTER_TOPOLOGY.fullmatch(name, len(prefix)) is not None


def topology_of_policy(name: str) -> str | None:
    """The topology that a policy of this name was made for; None for a foreign policy."""
    for found in _AFTER_TOPOLOGY.finditer(name):
        if found.end() == len(name) and name.startswith("amqpflow."):
            return name[len("amqpflow.") : found.start()] or None
    return None
