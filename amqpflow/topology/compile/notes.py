"""Sentences about a topology that a plan should say: what holds only in part, and where."""

from __future__ import annotations

from amqpflow.model.units import first_few
from amqpflow.topology.reading.spec import QueueSpec, TopologySpec


def notes_for(spec: TopologySpec) -> tuple[str, ...]:
    """Return one sentence for each thing, naming the queues it is about."""
    queues = [queue for queue in spec.queues.values() if not queue.external]
    notes = (
        _about(
            [queue for queue in queues if not queue.quorum and not queue.keeps_dead_letters],
            "classic: messages that RabbitMQ dead-letters (expiry, length, a foreign reject) are parked at most once",
        ),
        _about(
            [queue for queue in queues if queue.tiers_type == "classic" and spec.has_tiers(queue)],
            "classic retry queues: a message that comes back while the work queue is missing or full is lost",
        ),
        _about(
            [queue for queue in queues if queue.quorum and queue.max_priority is not None],
            "max_priority on a quorum queue: strict priorities 0 to 31 from RabbitMQ 4.3, two classes (0-4 and 5 up) "
            "on 4.0 to 4.2, none before",
        ),
        _about(
            [queue for queue in queues if queue.existing],
            "existing: its own arguments decide whether dead-lettering and limits by policy take effect",
        ),
    )
    return tuple(note for note in notes if note)


def _about(queues: list[QueueSpec], what: str) -> str:
    if not queues:
        return ""
    names = [queue.name for queue in queues]
    return f"{'queue' if len(names) == 1 else 'queues'} {first_few(names, 5)}: {what}"
