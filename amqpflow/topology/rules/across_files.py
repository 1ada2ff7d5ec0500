"""Rules across files: topologies that are applied side by side own different things."""

from __future__ import annotations

from collections.abc import Sequence

from amqpflow.topology.language.codes import Code
from amqpflow.topology.reading.problems import Problems
from amqpflow.topology.reading.spec import TopologySpec

from .names import Claim, claims

Pair = tuple[TopologySpec, Problems]


def check_together(files: Sequence[Pair]) -> None:
    """Apply every rule about several files; each finding is reported for the later file."""
    same_topologies(files)
    second_owners(files)
    external_queues(files)


def same_topologies(files: Sequence[Pair]) -> None:
    """Refuse two files of one name: the name is the owner, and they would undo each other."""
    known: dict[tuple[str, str], TopologySpec] = {}
    for spec, problems in files:
        first = known.setdefault((spec.vhost, spec.name), spec)
        if first is not spec and spec.name:
            message = f"{first.file} is a topology called {spec.name} as well, in the same virtual host"
            problems.error(Code.SAME_TOPOLOGY, spec.at("name"), message, "give it a name of its own")


def second_owners(files: Sequence[Pair]) -> None:
    """Check that one topology owns each queue and exchange, derived ones included."""
    known: dict[tuple[str, str, str], tuple[TopologySpec, Claim]] = {}
    for spec, problems in files:
        for claim in claims(spec):
            if not claim.declared:
                continue
            owner, first = known.setdefault((spec.vhost, claim.kind, claim.name), (spec, claim))
            # two files of one topology name were reported as such, and collide in everything
            if owner is not spec and (owner.vhost, owner.name) != (spec.vhost, spec.name):
                message = f"{claim.what} is the {claim.kind} {claim.name[:255]}, which topology {owner.name} owns"
                hint = f"see {first.place.file} line {first.place.line}; external: true uses what another owns"
                problems.error(Code.SECOND_OWNER, claim.place, message, hint)


def external_queues(files: Sequence[Pair]) -> None:
    """Check that an external queue is in its owner's file, where that file is given."""
    owners = {(spec.vhost, spec.name): spec for spec, _ in files}
    for spec, problems in files:
        for queue in spec.queues.values():
            owner = owners.get((spec.vhost, queue.owner or ""))
            if not queue.external or owner is None or owner is spec:
                continue
            owned = [each.name for each in owner.queues.values() if not each.external]
            if queue.name not in owned and queue.name not in owner.unreadable:
                message = f"topology {owner.name} ({owner.file}) has no queue {queue.name[:255]!r}"
                problems.error(Code.UNDEFINED_QUEUE, queue.place, message, problems.nearest(queue.name, owned))
