"""To take over what amqpflow did not create: arguments are immutable, so it is recorded in the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from amqpflow.model.resources import Exchange, Queue
from amqpflow.model.routes import CompiledTopology

from .changes import Change, PutManifest
from .equality import exchange_differences, queue_differences
from .findings import Finding, refuse
from .manifest import Manifest
from .observation import Observation
from .ownership import Ownership, recorded
from .plan import Plan
from .policies import applies, surely_matches


def adoption(topology: CompiledTopology, observed: Observation, wanted: Sequence[tuple[str, str]]) -> Plan:
    """
    A plan that records objects as the topology's own, and does nothing else.

    Args:
        topology: who takes them over.
        observed: what is on the broker.
        wanted: (queue, exchange or policy; name).
    """
    owns = Ownership(topology=topology, there=observed.state, manifest=observed.manifest)
    findings: list[Finding] = []
    if not observed.complete or not observed.manifest_known or observed.manifest_damaged:
        why = observed.manifest_problem or f"the management API is not used: {observed.source}"
        findings.append(
            refuse(
                "adoption-needs-manifest",
                f"topology {topology.name}",
                f"nothing can be adopted: {why}",
                observed.manifest_hint,
            )
        )
    new: list[tuple[str, str]] = []
    unchanged: list[tuple[str, str]] = []
    for kind, name in dict.fromkeys(wanted):
        found = list(_objections(kind, name, topology, owns)) if observed.complete else []
        findings += found
        if not found:
            (unchanged if _is_ours(kind, name, owns) else new).append((kind, name))
    base = observed.manifest or Manifest(topology=topology.name, vhost=observed.vhost)
    manifest = recorded(topology, observed.state, base)
    manifest = replace(manifest, adopted=manifest.adopted | frozenset(new))
    changes: tuple[Change, ...] = (PutManifest(manifest=manifest, replaces=observed.manifest),) if new else ()
    return Plan(
        topology=topology,
        broker=observed.broker,
        vhost=observed.vhost,
        complete=observed.complete,
        source=observed.source,
        changes=changes,
        unchanged=tuple(unchanged),
        findings=tuple(findings),
        purpose="adopt",
        observed=observed,
    )


def _objections(kind: str, name: str, topology: CompiledTopology, owns: Ownership) -> Iterator[Finding]:
    object_, there = f"{kind} {name}", owns.there
    if kind == "policy":
        yield from _objections_to_policy(name, topology, owns)
        return
    present: Queue | Exchange | None
    present = there.queues.get(name) if kind == "queue" else there.exchanges.get(name)
    desired = topology.desired.queues.get(name) if kind == "queue" else topology.desired.exchanges.get(name)
    if present is None:
        yield refuse("missing", object_, "it does not exist", "apply creates it")
        return
    if name.startswith("amq."):
        yield refuse("not-adoptable", object_, "it is RabbitMQ's own")
        return
    if present.owner not in (None, topology.name):
        yield refuse("other-owner", object_, f"it is owned by the topology {present.owner}", "destroy it there first")
        return
    if desired is None:
        yield refuse("not-in-file", object_, "the file does not declare it", "write it in the file as it is")
        return
    if isinstance(present, Queue) and isinstance(desired, Queue):
        differences = queue_differences(desired, present)
    elif isinstance(present, Exchange) and isinstance(desired, Exchange):
        differences = exchange_differences(desired, present)
    else:
        differences = ()
    for difference in differences:
        yield refuse(
            "differs",
            object_,
            f"{difference}; what is adopted must be as the file says, since it cannot be changed in place",
            difference=difference,
        )


def _objections_to_policy(name: str, topology: CompiledTopology, owns: Ownership) -> Iterator[Finding]:
    policy = owns.there.policies.get(name)
    if policy is None:
        yield refuse("missing", f"policy {name}", "it does not exist")
        return
    mine = topology.desired
    strangers = [
        *(
            f"queue {each.name}"
            for each in owns.there.queues.values()
            if each.name not in mine.queues and applies(policy, each) and not owns.of_queue(each)
        ),
        *(
            f"exchange {each.name}"
            for each in owns.there.exchanges.values()
            if each.name not in mine.exchanges and applies(policy, each) and not owns.of_exchange(each)
        ),
    ]
    if strangers:
        every: tuple[Queue | Exchange, ...] = (*owns.there.queues.values(), *owns.there.exchanges.values())
        certain = all(surely_matches(policy, each) for each in every if applies(policy, each))
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        yield refuse(
            "not-adoptable",
            f"policy {name}",
            f"it {'works' if certain else 'may work'} on what is not the topology's, too: "
            f"{', '.join(strangers[:3])}{more}",
            "narrow its pattern first",
        )


def _is_ours(kind: str, name: str, owns: Ownership) -> bool:
    match kind:
        case "queue":
            return owns.of_queue(owns.there.queues[name])
        case "exchange":
            return owns.of_exchange(owns.there.exchanges[name])
        case _:
            return owns.of_policy(owns.there.policies[name])
