"""Take over objects that amqpflow did not create: arguments are immutable, so the manifest records them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from amqpflow.model.resources import Binding, Exchange, Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.model.units import first_few
from amqpflow.planning.ownership.ownership import Ownership
from amqpflow.planning.policies.matching import applies, surely_matches
from amqpflow.planning.values.changes import Change, CreateExchange, PutManifest
from amqpflow.planning.values.differences import exchange_differences, queue_differences
from amqpflow.planning.values.findings import Finding, Ref, refuse
from amqpflow.planning.values.manifest import Damaged, Unseen
from amqpflow.planning.values.observation import Observation
from amqpflow.planning.values.plan import Plan


def adoption(topology: CompiledTopology, observed: Observation, wanted: Sequence[tuple[str, str]]) -> Plan:
    """Make a plan that records objects as the topology's own.

    Where nothing carries the topology's stamp yet, one of its two exchanges is created besides, after the record: a
    manifest is believed only where something does.

    Args:
        wanted: (queue, exchange, binding or policy; name). A binding is named as in the plan: `events -> mail (new)`.
    """
    owns = Ownership.of(topology, observed)
    findings = [*recordable(topology, observed, "nothing can be adopted")]
    bindings = {each.name: each for each in observed.state.bindings}
    new: list[tuple[str, str]] = []
    unchanged: list[tuple[str, str]] = []
    for kind, name in dict.fromkeys(wanted):
        found = list(_objections(kind, name, owns, bindings, observed.version)) if observed.complete else []
        findings += found
        if not found:
            (unchanged if observed.complete and _is_ours(kind, name, owns, bindings) else new).append((kind, name))
    changes: tuple[Change, ...] = ()
    if new and observed.complete:
        manifest = owns.recorded(observed.vhost)
        adopted = {bindings[name].identity: bindings[name] for kind, name in new if kind == "binding"}
        manifest = replace(
            manifest,
            bindings=(*manifest.bindings, *adopted.values()),
            unproven=tuple(each for each in manifest.unproven if each.identity not in adopted),
            found=tuple(each for each in manifest.found if each.identity not in adopted),
            adopted=manifest.adopted | {each for each in new if each[0] != "binding"},
        )
        changes = (PutManifest(manifest=manifest, replaces=observed.recorded),)
        mark = _mark(owns)
        if isinstance(mark, Finding):
            findings.append(mark)
        elif mark is not None:
            changes = (*changes, mark)
    return Plan(
        topology=topology,
        observed=observed,
        changes=changes,
        unchanged=tuple(unchanged),
        findings=tuple(findings),
        purpose="adopt",
    )


def recordable(topology: CompiledTopology, observed: Observation, nothing: str) -> Iterator[Finding]:
    """Yield why the manifest cannot be written, if it cannot."""
    state = observed.manifest
    if isinstance(state, Unseen | Damaged):
        why = state.why or f"the management API is not used: {observed.source}"
        hint = state.hint if isinstance(state, Damaged) else ""
        yield refuse("adoption-needs-manifest", Ref("topology", topology.name), f"{nothing}: {why}", hint)


def _mark(owns: Ownership) -> CreateExchange | Finding | None:
    """Return what carries the stamp from now on, where nothing does."""
    if owns.marked:
        return None
    topology, there = owns.topology, owns.there.exchanges
    names = (topology.parking_exchange, topology.retry_exchange)
    for name in names:
        exchange = topology.desired.exchanges.get(name)
        if exchange is not None and name not in there:
            return CreateExchange(exchange=exchange)
    own = [name for name in names if name in there]
    return refuse(
        "not-adoptable",
        Ref("topology", topology.name),
        "nothing in this virtual host carries its stamp, so the record would be ignored"
        + (f", and exchange {own[0]}, which should, was created by another program" if own else ""),
        f"delete exchange {own[0]} while nothing publishes to it: exchanges hold no messages, and it is declared again"
        if own
        else "apply the file first: it needs a queue or exchange that amqpflow creates",
    )


def _objections(
    kind: str, name: str, owns: Ownership, bindings: dict[str, Binding], version: tuple[int, ...]
) -> Iterator[Finding]:
    ref, there, topology = Ref(kind, name), owns.there, owns.topology
    if kind == "policy":
        yield from _objections_to_policy(name, owns, version)
        return
    if kind == "binding":
        yield from _objections_to_binding(name, owns, bindings)
        return
    present, desired = there.things(kind).get(name), topology.desired.things(kind).get(name)
    if present is None:
        yield refuse("missing", ref, "it does not exist", "apply creates it")
        return
    if kind == "exchange" and name == topology.native_marker:
        hint = "delete it: apply declares it after verifying that the broker delays rejected messages"
        yield refuse("not-adoptable", ref, "it marks that retries are delayed, which only apply can verify", hint)
        return
    if name.startswith("amq."):
        yield refuse("not-adoptable", ref, "it is RabbitMQ's own")
        return
    if present.owner not in (None, topology.name):
        yield refuse("other-owner", ref, f"it is owned by the topology {present.owner}", "destroy it there first")
        return
    if desired is None:
        yield refuse("not-in-file", ref, "the file does not declare it", "add it to the file as it is on the broker")
        return
    if isinstance(present, Queue) and isinstance(desired, Queue):
        differences = queue_differences(desired, present)
    elif isinstance(present, Exchange) and isinstance(desired, Exchange):
        differences = exchange_differences(desired, present)
    else:
        differences = ()
    for difference in differences:
        text = f"{difference}; an adopted object must match the file, because it cannot be changed in place"
        yield refuse("differs", ref, text, difference=difference)


def _objections_to_binding(name: str, owns: Ownership, bindings: dict[str, Binding]) -> Iterator[Finding]:
    ref, present = Ref("binding", name), bindings.get(name)
    if present is None:
        yield refuse("missing", ref, "it does not exist", as_named(name, bindings))
    elif not owns.listed(present):
        yield refuse("not-in-file", ref, "the file does not list it", "add it to the bindings of its queue")


def as_named(name: str, bindings: dict[str, Binding]) -> str:
    """Say how a binding is named, by those between the same two where there are any."""
    ends = name.partition(" (")[0].partition(" [")[0]
    near = [each for each in bindings if each == ends or each.startswith((f"{ends} (", f"{ends} ["))]
    return f"there is {', '.join(sorted(near)[:5])}" if near else "name it as the plan does: 'SOURCE -> QUEUE (KEY)'"


def _objections_to_policy(name: str, owns: Ownership, version: tuple[int, ...]) -> Iterator[Finding]:
    policy = owns.there.policies.get(name)
    if policy is None:
        yield refuse("missing", Ref("policy", name), "it does not exist")
    elif strangers := strangers_to(policy, owns, version):
        yield refuse("not-adoptable", Ref("policy", name), strangers, "narrow its pattern first")


def strangers_to(policy: Policy, owns: Ownership, version: tuple[int, ...]) -> str:
    """Say what a policy works on that is not the topology's; empty when there is nothing."""
    strangers, certain = [], True
    for kind in ("queue", "exchange"):
        for each in owns.there.things(kind).values():
            if applies(policy, each, version):
                certain = certain and surely_matches(policy, each)
                if each.name not in owns.topology.desired.things(kind) and not owns.of_thing(kind, each):
                    strangers.append(f"{kind} {each.name}")
    if not strangers:
        return ""
    works = "works" if certain else "may work"
    return f"it {works} on what is not the topology's, too: {first_few(strangers, 3)}"


def _is_ours(kind: str, name: str, owns: Ownership, bindings: dict[str, Binding]) -> bool:
    match kind:
        case "binding":
            return owns.of_binding(bindings[name]) == "ours" and not owns.is_unproven(bindings[name])
        case "policy":
            return owns.of_policy(owns.there.policies[name])
        case _:
            return owns.of_thing(kind, owns.there.things(kind)[name])
