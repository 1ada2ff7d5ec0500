"""A plan's changes with the manifest written around them.

What is about to be bound is written down as unproven before, and as ours after it was made; what is released is dropped
after it is gone. So whatever dies in between, nothing foreign is taken for ours, and nothing of ours is forgotten. An
old manifest that is not believed is replaced before anything that carries the stamp is made: it would be believed then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from amqpflow.model.resources import Binding
from amqpflow.planning.values.changes import (
    Bind,
    Change,
    DeleteExchange,
    DeleteQueue,
    Drain,
    EnsureBinding,
    PutManifest,
    RemoveManifest,
    RemovePolicy,
    Unbind,
)
from amqpflow.planning.values.manifest import Manifest
from amqpflow.planning.values.observation import Observation

from .ownership import Identity, Ownership


def with_manifest(
    changes: tuple[Change, ...], owns: Ownership, observed: Observation, *, still_retiring: Iterable[str], destroy: bool
) -> tuple[Change, ...]:
    """Return the changes of a plan between the manifest before and after them, each where it differs.

    `still_retiring` are queues that an earlier apply unbound and this plan leaves as they are. With `destroy` the
    topology owns nothing afterwards.
    """
    before = observed.recorded
    since = owns.believed.retiring if owns.believed is not None else {}
    draining = [change.name for change in changes if isinstance(change, Drain)]
    retiring = {name: since.get(name, observed.now_ms) for name in draining}
    retiring |= {name: since[name] for name in still_retiring if name in since}
    binding = [change.binding for change in changes if isinstance(change, Bind | EnsureBinding)]
    first = replace(owns.recorded(observed.vhost, binding), retiring=retiring)
    opening = () if first.says_the_same(before) else (PutManifest(manifest=first, replaces=before),)
    if destroy:
        if not changes:
            return (RemoveManifest(manifest=before),) if before is not None else ()
        return (*opening, *changes, RemoveManifest(manifest=first))
    last = _afterwards(first, changes)
    closing = () if last.says_the_same(first) else (PutManifest(manifest=last, replaces=first),)
    return (*opening, *changes, *closing)


def so_far(changes: Sequence[Change], done: Collection[Change]) -> PutManifest | None:
    """Return the manifest of a plan that stopped when these were `done`, in place of the last one; None: not needed."""
    last = changes[-1] if changes else None
    if not isinstance(last, PutManifest) or last.replaces is None or last in done:
        return None
    reached = _afterwards(last.replaces, done)
    return None if reached.says_the_same(last.replaces) else PutManifest(manifest=reached, replaces=last.replaces)


def _afterwards(first: Manifest, changes: Iterable[Change]) -> Manifest:
    gone: set[tuple[str, str]] = set()
    bound: set[Identity] = set()
    unbound: set[Identity] = set()
    for change in changes:
        match change:
            case DeleteQueue() | DeleteExchange() | RemovePolicy():
                gone.add((change.kind, change.name))
            case Bind(binding=binding) | EnsureBinding(binding=binding):
                bound.add(binding.identity)
            case Unbind(binding=binding):
                unbound.add(binding.identity)

    def left(bindings: Iterable[Binding]) -> Iterator[Binding]:
        for each in bindings:
            ends = {("exchange", each.source), (each.destination_type, each.destination)}
            if each.identity not in unbound and gone.isdisjoint(ends):
                yield each

    unproven = [*left(first.unproven)]
    return replace(
        first,
        bindings=(*left(first.bindings), *(each for each in unproven if each.identity in bound)),
        unproven=tuple(each for each in unproven if each.identity not in bound),
        found=tuple(left(first.found)),
        adopted=first.adopted - gone,
        retiring={name: since for name, since in first.retiring.items() if ("queue", name) not in gone},
    )
