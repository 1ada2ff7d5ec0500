"""What is ours: told by the stamp among an object's arguments, and by a policy's name, for policies bear no stamp."""

from __future__ import annotations


def is_own_policy(name: str, topology: str) -> bool:
    """
    Whether a policy of this name was made for this topology.

    The last part of such a name holds no dot, so that the topology orders does not claim those of orders.eu.
    """
    return name.rpartition(".")[0] == f"amqpflow.{topology}"
