"""Report how the broker differs from the file, object by object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from amqpflow.model.diagnostic import Severity
from amqpflow.model.units import plural
from amqpflow.planning.compare.leftovers import UNPROVEN, leftovers
from amqpflow.planning.ownership.ownership import Ownership, is_own_policy
from amqpflow.planning.values import changes
from amqpflow.planning.values.differences import Difference
from amqpflow.planning.values.findings import Ref
from amqpflow.planning.values.plan import Plan

What = Literal["missing", "changed", "added", "foreign"]

_FOREIGN = frozenset(
    {
        "missing",
        "other-owner",
        "not-ours",
        "other-type",
        "exclusive",
        "foreign-policy",
        "foreign-policy-limits",
        "foreign-binding",
        "foreign-alternate-exchange",
        "policy-hidden",
        "policy-tie",
        "native-hidden",
        "manifest-unreadable",
        "manifest-outdated",
    }
)
"""Findings that say what another program did to the broker. The others say why something could not be applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One object that is not as the file says."""

    what: What  #: changed: see `attributes`; foreign: a foreign object breaks a promise of the file
    ref: Ref
    attributes: tuple[Difference, ...] = field(default=(), compare=False)
    """`observed` on the broker, `desired` in the file; `message` says the same."""
    message: str = ""
    hint: str = ""

    @property
    def object(self) -> str:
        """Return the reference as text: queue orders.confirm"""
        return str(self.ref)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """How a virtual host differs from a topology. Nothing was changed by looking."""

    plan: Plan  #: what apply would do about it
    drifts: tuple[Drift, ...] = ()
    unseen: tuple[str, ...] = ()  #: what could not be compared, over AMQP alone for example

    @property
    def same(self) -> int:
        """Return objects that are as the file says."""
        return len(self.plan.unchanged)


def drift(plan: Plan) -> DriftReport:
    """Return what a plan says about the broker; the plan is as `diff` returns it, and prunes nothing."""
    found = [*_steps(plan), *_differing(plan), *_added(plan), *_foreign(plan)]
    return DriftReport(plan=plan, drifts=tuple(dict.fromkeys(found)), unseen=tuple(_unseen(plan)))


def _steps(plan: Plan) -> Iterator[Drift]:
    for change in plan.changes:
        match change:
            case changes.CreateExchange() | changes.CreateQueue() | changes.Bind():
                yield _missing(changes.ref_of(change))
            case changes.PutPolicy(replaces=None):
                yield _missing(changes.ref_of(change))
            case changes.PutPolicy(differences=differences):
                yield _changed(changes.ref_of(change), differences)
            case changes.RemovePolicy():
                yield _left(changes.ref_of(change))


def _missing(ref: Ref) -> Drift:
    return Drift(what="missing", ref=ref, message="the file declares it, but the broker does not have it")


_EITHER = "`amqpflow apply --prune` removes it, `amqpflow disown` releases it"


def _left(ref: Ref, *, adopted: bool = False) -> Drift:
    """Return what is ours and not in the file; an object without a stamp can also be disowned."""
    message = "this topology owns it, but the file does not declare it"
    return Drift(what="added", ref=ref, message=message, hint=_EITHER if adopted else "")


def _changed(ref: Ref, differences: tuple[Difference, ...]) -> Drift:
    return Drift(what="changed", ref=ref, attributes=differences, message="; ".join(map(str, differences)))


def _differing(plan: Plan) -> Iterator[Drift]:
    found: dict[Ref, list[Difference]] = {}
    for finding in plan.refusals:
        if finding.code == "differs":
            if finding.difference is not None:
                found.setdefault(finding.ref, []).append(finding.difference)
            else:
                yield Drift(what="changed", ref=finding.ref, message=finding.message)
    for name, differences in plan.replaced.items():
        found.setdefault(Ref("queue", name), []).extend(differences)
    for ref, known in found.items():
        yield _changed(ref, tuple(known))


def _added(plan: Plan) -> Iterator[Drift]:
    """Yield what is ours and not in the file, and bindings into what is ours that the file does not have."""
    topology, desired = plan.topology, plan.topology.desired
    state, owns = plan.observed.state, Ownership.of(topology, plan.observed)
    left = leftovers(owns, desired)
    gone = left.things
    for exchange in left.exchanges:
        yield _left(Ref("exchange", exchange.name), adopted=exchange.owner is None)
    for queue in left.queues:
        yield _left(Ref("queue", queue.name), adopted=queue.owner is None)
    for policy in left.policies:
        if not is_own_policy(policy.name, topology.name):
            yield _left(Ref("policy", policy.name), adopted=True)
    wanted = {each.identity for each in desired.bindings}
    own = ("", topology.retry_exchange, topology.parking_exchange)  # foreign ones on ours are among the findings
    for binding in state.bindings:
        ends = {("exchange", binding.source), (binding.destination_type, binding.destination)}
        if binding.identity in wanted or not gone.isdisjoint(ends):
            continue  # a binding goes with what left
        origin = owns.of_binding(binding)
        if origin == "ours":
            yield _left(Ref("binding", binding.name), adopted=True)
        elif origin == "unproven":
            message = f"this topology may own it ({UNPROVEN}), but the file does not declare it"
            yield Drift(what="added", ref=Ref("binding", binding.name), message=message, hint=_EITHER)
        elif binding.source not in own and binding.destination in desired.things(binding.destination_type):
            message = "it brings in messages, but the file does not declare it"
            yield Drift(what="added", ref=Ref("binding", binding.name), message=message)


def _foreign(plan: Plan) -> Iterator[Drift]:
    for each in plan.findings:
        displaced = each.code == "policy-displaces" and each.severity is Severity.ERROR
        if each.code in _FOREIGN or displaced:
            what: What = "missing" if each.code == "missing" else "foreign"
            yield Drift(what=what, ref=each.ref, message=each.message, hint=each.hint)


def _unseen(plan: Plan) -> Iterator[str]:
    if plan.complete:
        return
    bindings = sum(isinstance(change, changes.EnsureBinding) for change in plan.changes)
    if bindings:
        yield f"{plural(bindings, 'binding')} of the file: they cannot be read over AMQP"
    if policies := len(plan.topology.desired.policies):
        yield f"{policies} {'policy' if policies == 1 else 'policies'} of the file: they cannot be read over AMQP"
    yield "owners, further bindings and foreign policies: they cannot be read over AMQP"
