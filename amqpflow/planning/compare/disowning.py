"""Disown adopted objects, or bindings that apply made: they stay on the broker without an owner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from amqpflow.model.resources import Binding
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.ownership.ownership import Ownership, is_own_policy
from amqpflow.planning.values.changes import Change, PutManifest
from amqpflow.planning.values.findings import Finding, Ref, refuse, warn
from amqpflow.planning.values.manifest import Manifest
from amqpflow.planning.values.observation import Observation
from amqpflow.planning.values.plan import Plan

from .adoption import as_named, recordable


def disowning(topology: CompiledTopology, observed: Observation, wanted: Sequence[tuple[str, str]]) -> Plan:
    """Make a plan that drops objects from the record of what the topology owns, and does nothing else.

    Args:
        wanted: (queue, exchange, binding or policy; name). A binding is named as in the plan: `events -> mail (new)`.
    """
    owns = Ownership.of(topology, observed)
    findings = [*recordable(topology, observed, "nothing recorded can be disowned")]
    bindings = {each.name: each for each in observed.state.bindings}
    given_up: list[tuple[str, str]] = []
    unchanged: list[tuple[str, str]] = []
    for kind, name in dict.fromkeys(wanted) if observed.complete else ():
        found = list(_objections(kind, name, owns, bindings))
        findings += found
        if not found:
            recorded = _is_recorded(kind, name, owns, bindings)
            (given_up if recorded else unchanged).append((kind, name))
            findings += _still_declared(kind, name, topology) if recorded else ()
    changes: tuple[Change, ...] = ()
    if given_up:
        manifest = _without(given_up, owns, owns.recorded(observed.vhost), bindings)
        changes = (PutManifest(manifest=manifest, replaces=observed.recorded),)
    return Plan(
        topology=topology,
        observed=observed,
        changes=changes,
        unchanged=tuple(unchanged),
        findings=tuple(findings),
        purpose="disown",
    )


def _objections(kind: str, name: str, owns: Ownership, bindings: dict[str, Binding]) -> Iterator[Finding]:
    ref, topology, state = Ref(kind, name), owns.topology, owns.there
    if kind == "binding":
        present = bindings.get(name)
        if present is None:
            yield refuse("missing", ref, "it does not exist", as_named(name, bindings))
        elif owns.of_binding(present) == "ours" and not owns.is_recorded(present):
            yield refuse(
                "not-disownable",
                ref,
                "it binds a queue of the topology to one of its own exchanges, and is removed with the queue",
                "disown the queue, if it was adopted",
            )
        return
    things = state.things(kind)
    owner = things[name].owner if kind != "policy" and name in things else None
    if owner == topology.name or (kind == "policy" and is_own_policy(name, topology.name)):
        mark = "name says so" if kind == "policy" else "stamp is an argument, which RabbitMQ never changes"
        hint = "keep it in the file; only adopted objects can be disowned"
        yield refuse("not-disownable", ref, f"amqpflow created it: its {mark}", hint)
    elif owner is not None:
        yield refuse("other-owner", ref, f"it is owned by the topology {owner}", "disown it there")
    elif not _is_recorded(kind, name, owns, bindings) and name not in (state.policies if kind == "policy" else things):
        yield refuse("missing", ref, "it does not exist, and nothing of that name was adopted")


def _is_recorded(kind: str, name: str, owns: Ownership, bindings: dict[str, Binding]) -> bool:
    if kind == "binding":
        return owns.is_recorded(bindings[name])
    return owns.believed is not None and (kind, name) in owns.believed.adopted


def _still_declared(kind: str, name: str, topology: CompiledTopology) -> Iterator[Finding]:
    if kind == "queue" and name in topology.desired.queues:
        yield warn(
            "still-declared",
            Ref(kind, name),
            "the file still declares it as the topology's own, so apply refuses from now on",
            "take it out of the file, or write existing: true",
        )


def _without(
    given_up: Sequence[tuple[str, str]], owns: Ownership, manifest: Manifest, bindings: dict[str, Binding]
) -> Manifest:
    gone = {bindings[name].identity for kind, name in given_up if kind == "binding"}
    queues = {name for kind, name in given_up if kind == "queue"}
    # what apply bound for a queue in our own exchanges was known by the queue's owner; from now on by the record
    bound = [
        each
        for each in owns.there.bindings
        if each.destination in queues and owns.of_binding(each) == "ours" and not owns.is_recorded(each)
    ]
    released = [each for each in owns.there.bindings if each.identity in gone and owns.listed(each)]
    return replace(
        manifest,
        bindings=(*(each for each in manifest.bindings if each.identity not in gone), *bound),
        unproven=tuple(each for each in manifest.unproven if each.identity not in gone),
        found=(*manifest.found, *released),
        adopted=manifest.adopted - set(given_up),
    )
