"""Compare the desired with the observed state: what is missing, what matches, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from amqpflow.model.resources import BrokerState
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.checks.existing_queues import around_existing
from amqpflow.planning.checks.guarantees import guarantees, sentences
from amqpflow.planning.checks.message_loss import at_stake, objections, with_risks
from amqpflow.planning.checks.preflight import preflight
from amqpflow.planning.checks.shield import shielded
from amqpflow.planning.ownership.manifest_steps import with_manifest
from amqpflow.planning.ownership.ownership import Ownership, is_own_policy, outlived
from amqpflow.planning.values.approvals import NOTHING, Approval, Approvals
from amqpflow.planning.values.changes import Change, RemovePolicy, Unbind, ref_of
from amqpflow.planning.values.differences import policy_differences
from amqpflow.planning.values.findings import Finding, Ref, refuse
from amqpflow.planning.values.guarantee import Guarantee
from amqpflow.planning.values.manifest import Damaged, Unseen, parameter_name
from amqpflow.planning.values.observation import Observation
from amqpflow.planning.values.plan import ListedBinding, Plan

from .additions import Additions, required_objects
from .delayed_retry import too_old
from .leftovers import Leftovers, left_alone, leftovers
from .order import ordered, replacement_steps
from .release_support import adapt_to_release
from .removal import FILE_LACKS_IT, Removal
from .replacement import TierReplacement, stand_in_name

NO_MANAGEMENT = (
    "owners, bindings and foreign policies cannot be read over AMQP, so bindings are made again (which changes nothing "
    "where they exist) and foreign policies are not checked."
)


def diff(
    desired: CompiledTopology, observed: Observation, *, prune: bool = False, approvals: Approvals = NOTHING
) -> Plan:
    """Compare a topology with what is there: a plan whose changes are in an order in which every prefix is safe.

    What would need more than additive changes is among its refusals, every reason at once.

    Args:
        desired: the topology.
        observed: what is on the broker; with the depths of what `candidates` names.
        prune: remove what the topology owns and its file no longer has, too.
        approvals: the queues it names may be removed with messages or consumers. Whether the plan as such is allowed
            is for who carries it out, see `Plan.needs`.
    """
    return _Comparison(desired, observed, prune, approvals).plan()


def destruction(desired: CompiledTopology, observed: Observation, *, approvals: Approvals = NOTHING) -> Plan:
    """Return the removal of everything the topology owns, by the same rules as `diff` with `prune`."""
    return _Comparison(desired, observed, True, approvals).destruction()


def candidates(
    desired: CompiledTopology, observed: Observation, *, prune: bool, destroy: bool = False
) -> frozenset[str]:
    """Return the queues that a plan may remove or swap: their depths should be observed before it is made."""
    return _Comparison(desired, observed, prune, NOTHING).candidates(destroy)


class _Comparison:
    def __init__(self, topology: CompiledTopology, observed: Observation, prune: bool, approvals: Approvals) -> None:
        fitting, notes = adapt_to_release(topology.desired, observed.version)
        self.topology = shielded(around_existing(replace(topology, desired=fitting), observed), observed)
        self.desired, self.observed, self.there = self.topology.desired, observed, observed.state
        self.findings: list[Finding] = []
        self.notes = [*topology.notes, *notes]
        self.prune, self.approvals = prune, approvals
        self.promised: tuple[Guarantee, ...] = ()
        self.owns = Ownership.of(self.topology, observed)
        self.tiers = {tier.queue: name for name, each in topology.routes.items() for tier in each.tiers}
        self.swaps = {swap.desired.name: swap for swap in self._swaps()}
        self.added = Additions(self.topology, observed, self.owns, self.swaps)

    def plan(self) -> Plan:
        self.findings += too_old(self.topology, self.observed.version)
        self.added.compare()
        self.findings += self.added.findings
        self.findings += preflight(self.topology, self.observed)
        self.promised = guarantees(self.topology, self.observed)
        self.notes += sentences(self.promised)
        if not self.observed.complete:
            self.notes.append(f"Without the management API ({self.observed.source}): {NO_MANAGEMENT}")
        additions = ordered(self.added.changes, self.topology)
        swaps = replacement_steps(self.swaps.values())
        left = self._leftovers(self.desired)
        removals: tuple[Change, ...] = ()
        if self.prune:
            removals = self._removals(left)
        else:
            self.notes += left_alone(left, self.topology, self.there)
        needs = [*([Approval("replace")] if swaps else []), *_consent_to(removals)]
        return self._plan((*additions, *swaps, *removals), left, needs, "prune" if self.prune else "apply")

    def destruction(self) -> Plan:
        left = self._leftovers(BrokerState())
        removals = self._removals(left, f"topology {self.topology.name} is destroyed")
        return self._plan(removals, left, [*_consent_to(removals)], "destroy")

    def candidates(self, destroy: bool) -> frozenset[str]:
        names = {name for swap in self.swaps.values() for name in (swap.desired.name, stand_in_name(swap.desired.name))}
        if self.prune:
            names |= {each.name for each in self._leftovers(BrokerState() if destroy else self.desired).queues}
        names |= {each.queue for each in at_stake(self._with_stakes(self._policy_changes(destroy)))}
        return frozenset(names & self.there.queues.keys())

    def _policy_changes(self, destroy: bool) -> list[Change]:
        """Return the changes of a plan that write or remove policies, those of other kinds left out."""
        left = self._leftovers(BrokerState() if destroy else self.desired) if self.prune else Leftovers()
        removed: list[Change] = [RemovePolicy(policy=each) for each in left.policies]
        if destroy or not self.there.queues or not self._policies_differ():
            return removed
        self.added.compare()
        return [*(each for each in self.added.changes if each.kind == "policy"), *removed]

    def _policies_differ(self) -> bool:
        """Return whether a plan writes or removes a policy at all: most do not, and need no second comparison."""
        wanted, there = self.desired.policies, self.there.policies
        return any(
            name not in there or policy_differences(policy, there[name]) for name, policy in wanted.items()
        ) or any(name not in wanted and is_own_policy(name, self.topology.name) for name in there)

    def _with_stakes(self, changes: Sequence[Change]) -> tuple[Change, ...]:
        return with_risks(changes, self.observed, self.approvals, self.topology.name)

    def _leftovers(self, kept: BrokerState) -> Leftovers:
        if not self.observed.complete:
            return Leftovers()
        exchanges, queues = required_objects(self.topology)
        needed = {("exchange", name) for name in exchanges} | {("queue", name) for name in queues}
        needed |= {("queue", name) for name in self.topology.required_queues}
        left = leftovers(self.owns, kept, frozenset(needed) if kept.queues or kept.exchanges else frozenset())
        if not kept.queues and not kept.exchanges:
            return left
        carried = {stand_in_name(name) for name in self.swaps}
        return replace(
            left,
            queues=tuple(each for each in left.queues if each.name not in carried),
            bindings=tuple(each for each in left.bindings if each.destination not in carried),
            # policies of our names are settings, changed and removed in place by any apply
            policies=tuple(each for each in left.policies if not is_own_policy(each.name, self.topology.name)),
        )

    def _removals(self, left: Leftovers, why: str = FILE_LACKS_IT) -> tuple[Change, ...]:
        if not self.observed.complete:
            text = f"who owns what cannot be read over AMQP, and the management API is not used: {self.observed.source}"
            ref = Ref("topology", self.topology.name)
            self.findings.append(refuse("removal-needs-management", ref, text, "give `management_url`"))
        removal = Removal(owns=self.owns, left=left, observed=self.observed, approvals=self.approvals, why=why)
        self.findings += removal.hindrances()
        return tuple(removal.steps())

    def _plan(self, changes: tuple[Change, ...], left: Leftovers, needs: list[Approval], purpose: str) -> Plan:
        changes = self._with_stakes(changes)
        self.findings += objections(changes, self.observed)
        match self.observed.manifest:
            case Damaged(why=why, hint=hint):
                name = parameter_name(self.observed.vhost, self.topology.name)
                text = f"it should be the manifest of topology {self.topology.name}, but {why}"
                self.findings.append(refuse("manifest-unreadable", Ref("global parameter", name), text, hint))
            case Unseen(why=why):
                if why:
                    self.notes.append(
                        f"No manifest: {why}. Owners are known by stamps alone: a binding that leaves the file is not "
                        "recognised, and nothing can be adopted."
                    )
            case _:
                staying = [each.name for each in left.queues] if purpose == "apply" else []
                changes = with_manifest(
                    changes, self.owns, self.observed, still_retiring=staying, destroy=purpose == "destroy"
                )
        if (stale := self.owns.disbelieved) is not None:
            self.findings.append(outlived(stale))
        return Plan(
            topology=self.topology,
            observed=self.observed,
            changes=changes,
            purpose=purpose,
            needs=tuple(needs),
            replaced={name: swap.differences for name, swap in self.swaps.items() if purpose != "destroy"},
            unchanged=tuple(self.added.unchanged),
            used=tuple(self.added.used),
            listed=tuple(self._listed()),
            findings=tuple(dict.fromkeys(self.findings)),
            notes=tuple(dict.fromkeys(self.notes)),
            guarantees=self.promised,
        )

    def _listed(self) -> Iterator[ListedBinding]:
        wanted = {each.identity for each in self.desired.bindings}
        own = (self.topology.retry_exchange, self.topology.parking_exchange)
        for binding in self.there.bindings:
            if binding.identity in wanted and binding.source not in own:
                yield ListedBinding(binding=binding, origin=self.owns.of_binding(binding))

    def _swaps(self) -> Iterator[TierReplacement]:
        """Yield retry queues of ours that differ under the same name, and those whose swap was begun."""
        if not self.observed.complete:
            return
        for name, work_queue in self.tiers.items():
            desired = self.desired.queues.get(name)
            if desired is None:
                continue
            there = self.there.queues.get(name)
            swap = TierReplacement(
                desired=desired,
                work_queue=work_queue,
                retry_exchange=self.topology.retry_exchange,
                observed=self.observed,
            )
            ours = there is None or self.owns.of_queue(there)
            if ours and (swap.under_way or (there is not None and swap.differences)):
                yield swap


def _consent_to(removals: Sequence[Change]) -> Iterator[Approval]:
    """Yield the approvals that removals need: one each for a binding that may be an application's, one for the rest."""
    unproven = [change for change in removals if isinstance(change, Unbind) and change.unproven]
    if len(unproven) < len(removals):
        yield Approval("delete")
    yield from (Approval("delete", ref_of(change)) for change in unproven)
