"""A plan's changes with the manifest written around them: claims before they are made, releases after they are kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from amqpflow.model.routes import CompiledTopology

from .changes import Change, DeleteExchange, DeleteQueue, Drain, PutManifest, RemoveManifest, RemovePolicy, Unbind
from .manifest import Manifest
from .observation import Observation
from .ownership import recorded


def with_manifest(
    changes: tuple[Change, ...],
    topology: CompiledTopology,
    observed: Observation,
    *,
    still_retiring: Iterable[str],
    destroy: bool,
) -> tuple[Change, ...]:
    """
    The changes, opened by a `PutManifest` where they bind or drain what is not recorded, closed by one where they end.

    Args:
        changes: of a plan, in order.
        topology, observed: what they were made from.
        still_retiring: queues that were unbound by an earlier apply, and that this plan leaves as they are.
        destroy: the topology is to own nothing afterwards.
    """
    before = observed.manifest
    base = before or Manifest(topology=topology.name, vhost=observed.vhost)
    draining = [change.name for change in changes if isinstance(change, Drain)]
    retiring = {name: base.retiring.get(name, observed.now_ms) for name in draining}
    retiring |= {name: base.retiring[name] for name in still_retiring if name in base.retiring}
    first = replace(recorded(topology, observed.state, base), retiring=retiring)
    opening = () if first.says_the_same(before) else (PutManifest(manifest=first, replaces=before),)
    if destroy:
        if not changes:
            return (RemoveManifest(manifest=before),) if before is not None else ()
        return (*opening, *changes, RemoveManifest(manifest=first))
    last = _afterwards(first, changes)
    closing = () if last.says_the_same(first) else (PutManifest(manifest=last, replaces=first),)
    return (*opening, *changes, *closing)


def so_far(changes: Sequence[Change], done: Collection[Change]) -> PutManifest | None:
    """
    What records a plan that stopped in the middle, instead of the manifest that closes it; None when that is not due.

    Args:
        changes: of the plan.
        done: those that were carried out.
    """
    last = changes[-1] if changes else None
    if not isinstance(last, PutManifest) or last.replaces is None or last in done:
        return None
    reached = _afterwards(last.replaces, done)
    return None if reached.says_the_same(last.replaces) else PutManifest(manifest=reached, replaces=last.replaces)


def _afterwards(first: Manifest, changes: Iterable[Change]) -> Manifest:
    gone: set[tuple[str, str]] = set()
    unbound: set[tuple[str, str, str, str, str]] = set()
    for change in changes:
        match change:
            case DeleteQueue() | DeleteExchange() | RemovePolicy():
                gone.add((change.kind, change.name))
            case Unbind(binding=binding):
                unbound.add(binding.identity)
    return replace(
        first,
        bindings=tuple(
            each
            for each in first.bindings
            if each.identity not in unbound and (each.destination_type, each.destination) not in gone
        ),
        adopted=first.adopted - gone,
        retiring={name: since for name, since in first.retiring.items() if ("queue", name) not in gone},
    )
