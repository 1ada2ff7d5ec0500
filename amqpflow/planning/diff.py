"""Desired against observed: what is missing, what is as it should be, and what stands in the way. All of it at once."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace

from amqpflow.model.resources import Arguments, Binding, BrokerState, Exchange, Queue
from amqpflow.model.routes import CompiledTopology, NativeRetry
from amqpflow.model.wire import encode_table

from .allowance import Allowance
from .borrowed import around_existing, borrowed, existing_queues, needed_exchanges, needed_queues
from .capabilities import fit, refused_arguments
from .changes import (
    Addition,
    Bind,
    Change,
    CreateExchange,
    CreateQueue,
    EnsureBinding,
    PutPolicy,
    RemovePolicy,
    binding_name,
)
from .displacement import clashes
from .equality import Difference, exchange_differences, policy_differences, queue_differences
from .findings import Finding, refuse
from .guarantees import Guarantee, guarantees, sentences
from .manifest import parameter_name
from .native import delays, hidden, too_old
from .observation import Observation
from .order import ordered, swapped
from .ownership import Ownership, is_own_policy
from .plan import Plan, UsedAsItIs
from .preflight import preflight
from .recording import with_manifest
from .removal import FILE_LACKS_IT, Leftovers, Removal, left_alone, leftovers
from .shrinking import shrinking
from .swap import Swap, stand_in_name

NO_MANAGEMENT = (
    "owners, bindings and foreign policies cannot be read over AMQP, so bindings are made again (which changes nothing "
    "where they exist) and foreign policies are not checked."
)


NOTHING = Allowance()


def diff(
    desired: CompiledTopology, observed: Observation, *, prune: bool = False, allowance: Allowance = NOTHING
) -> Plan:
    """
    Compare a topology with what is there.

    Args:
        desired: the topology.
        observed: what is on the broker; with the depths of what `candidates` names.
        prune: remove what the topology owns and its file no longer has, too.
        allowance: the queues it names may be removed with messages or consumers. Whether the plan as such is allowed
            is for who carries it out, see `Plan.required`.

    Returns:
        A plan whose changes are additive or in place, in an order in which every prefix is safe. What would need more
        than that is among its refusals, every reason at once; with a refusal there is nothing to be executed.
    """
    return _Comparison(desired, observed, prune, allowance).plan()


def destruction(desired: CompiledTopology, observed: Observation, *, allowance: Allowance = NOTHING) -> Plan:
    """The removal of everything the topology owns, by the same rules as `diff` with `prune`."""
    return _Comparison(desired, observed, True, allowance).destruction()


def candidates(
    desired: CompiledTopology, observed: Observation, *, prune: bool, destroy: bool = False
) -> frozenset[str]:
    """The queues that a plan may remove or swap: their depths should be observed before it is made."""
    return _Comparison(desired, observed, prune, NOTHING).candidates(destroy)


def outside(desired: CompiledTopology) -> tuple[frozenset[str], frozenset[str]]:
    """The exchanges and queues that a topology refers to without declaring them: they must be there before it."""
    state = desired.desired
    exchanges = {*desired.required_exchanges, *needed_exchanges(desired)}
    queues = {*desired.required_queues, *needed_queues(desired)}
    for binding in state.bindings:
        exchanges.add(binding.source)
        (queues if binding.destination_type == "queue" else exchanges).add(binding.destination)
    for exchange in state.exchanges.values():
        exchanges.add(exchange.alternate_exchange or "")
    for queue in state.queues.values():
        target = queue.arguments.get("x-dead-letter-exchange")
        if target == "":
            queues.add(queue.arguments.get("x-dead-letter-routing-key", ""))
        else:
            exchanges.add(target or "")
    return frozenset(exchanges - state.exchanges.keys() - {""}), frozenset(queues - state.queues.keys() - {""})


class _Comparison:
    def __init__(self, topology: CompiledTopology, observed: Observation, prune: bool, allowance: Allowance) -> None:
        fitting, notes = fit(topology.desired, observed.version)
        self.topology = around_existing(replace(topology, desired=fitting), observed)
        self.desired, self.observed, self.there = self.topology.desired, observed, observed.state
        self.changes: list[Addition] = []
        self.unchanged: list[tuple[str, str]] = []
        self.used: list[UsedAsItIs] = []
        self.findings: list[Finding] = []
        self.notes = [*topology.notes, *notes]
        self.prune, self.allowance = prune, allowance
        self.promised: tuple[Guarantee, ...] = ()
        self.owns = Ownership(topology=self.topology, there=self.there, manifest=observed.manifest)
        self.tiers = {tier.queue: name for name, each in topology.routes.items() for tier in each.tiers}
        self.swaps = {swap.desired.name: swap for swap in self._swaps()}

    def plan(self) -> Plan:
        self.findings += too_old(self.topology, self.observed.version)
        self._outside()
        self.findings += borrowed(self.topology, self.observed)
        for exchange in self.desired.exchanges.values():
            self._exchange(exchange)
        for queue in self.desired.queues.values():
            self._queue(queue)
        self._bindings()
        self._policies()
        self.findings += preflight(self.topology, self.observed)
        self.promised = guarantees(self.topology, self.observed)
        self.notes += sentences(self.promised)
        if not self.observed.complete:
            self.notes.append(f"Without the management API ({self.observed.source}): {NO_MANAGEMENT}")
        additions = ordered(self.changes, self.topology)
        swaps = swapped(self.swaps.values())
        left = self._leftovers(self.desired)
        removals: tuple[Change, ...] = ()
        if self.prune:
            removals = self._removals(left)
        else:
            self.notes += left_alone(left, self.topology, self.there)
        required = [word for word, steps in (("replace", swaps), ("delete", removals)) if steps]
        return self._plan((*additions, *swaps, *removals), left, required, "prune" if self.prune else "apply")

    def destruction(self) -> Plan:
        left = self._leftovers(BrokerState())
        removals = self._removals(left, f"topology {self.topology.name} is destroyed")
        return self._plan(removals, left, ["delete"] if removals else [], "destroy")

    def candidates(self, destroy: bool) -> frozenset[str]:
        names = {name for swap in self.swaps.values() for name in (swap.desired.name, stand_in_name(swap.desired.name))}
        if self.prune:
            names |= {each.name for each in self._leftovers(BrokerState() if destroy else self.desired).queues}
        return frozenset(names & self.there.queues.keys())

    def _leftovers(self, kept: BrokerState) -> Leftovers:
        if not self.observed.complete:
            return Leftovers()
        exchanges, queues = outside(self.topology)
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
            self.findings.append(
                refuse(
                    "removal-needs-management",
                    f"topology {self.topology.name}",
                    "who owns what cannot be read over AMQP, and the management API is not used: "
                    f"{self.observed.source}",
                    "give --management-url",
                )
            )
        removal = Removal(topology=self.topology, left=left, observed=self.observed, allowance=self.allowance, why=why)
        hindrances = list(removal.hindrances())
        self.findings += hindrances
        return tuple(removal.steps())

    def _plan(self, changes: tuple[Change, ...], left: Leftovers, required: list[str], purpose: str) -> Plan:
        if self.observed.manifest_damaged:
            self.findings.append(
                refuse(
                    "manifest-unreadable",
                    f"global parameter {parameter_name(self.observed.vhost, self.topology.name)}",
                    f"it should be the manifest of topology {self.topology.name}, but {self.observed.manifest_problem}",
                    "delete it: what is in the file and on the broker is recorded again",
                )
            )
        elif self.observed.complete and self.observed.manifest_problem:
            self.notes.append(
                f"No manifest: {self.observed.manifest_problem}. Owners are told by stamps alone: a binding that "
                "leaves the file is not recognised, and nothing can be adopted."
            )
        if self.observed.manifest_known and not self.observed.manifest_damaged:
            staying = [each.name for each in left.queues] if purpose == "apply" else []
            changes = with_manifest(
                changes, self.topology, self.observed, still_retiring=staying, destroy=purpose == "destroy"
            )
        return Plan(
            topology=self.topology,
            broker=self.observed.broker,
            vhost=self.observed.vhost,
            complete=self.observed.complete,
            source=self.observed.source,
            changes=changes,
            purpose=purpose,
            required=tuple(required),
            replaced={name: swap.differences for name, swap in self.swaps.items() if purpose != "destroy"},
            unchanged=tuple(self.unchanged),
            used=tuple(self.used),
            findings=tuple(dict.fromkeys(self.findings)),
            notes=tuple(dict.fromkeys(self.notes)),
            observed=self.observed,
            guarantees=self.promised,
        )

    def _swaps(self) -> Iterator[Swap]:
        """Retry queues of ours that differ under the same name, and those whose swap was begun."""
        if not self.observed.complete:
            return
        for name, work_queue in self.tiers.items():
            desired = self.desired.queues.get(name)
            if desired is None:
                continue
            there = self.there.queues.get(name)
            swap = Swap(
                desired=desired,
                work_queue=work_queue,
                retry_exchange=self.topology.retry_exchange,
                observed=self.observed,
            )
            ours = there is None or self.owns.of_queue(there)
            if ours and (swap.under_way or (there is not None and swap.differences)):
                yield swap

    def _outside(self) -> None:
        exchanges, queues = outside(self.topology)
        for kind, names, present in (
            ("exchange", exchanges, self.there.exchanges),
            ("queue", queues, self.there.queues),
        ):
            for name in sorted(names - present.keys()):
                self.findings.append(
                    refuse("missing", f"{kind} {name}", "it does not exist", "create it first, or apply what owns it")
                )

    def _exchange(self, desired: Exchange) -> None:
        object_ = f"exchange {desired.name}"
        there = self.there.exchanges.get(desired.name)
        if text := self.observed.unreadable.get(("exchange", desired.name)):
            self.findings.append(refuse("differs", object_, f"{text}; it cannot be changed in place"))
            return
        if there is None:
            if not self.observed.has_exchange_type(desired.type):
                self.findings.append(
                    refuse(
                        "exchange-type",
                        object_,
                        f"this broker has no exchange type {desired.type}",
                        "a plugin provides it: rabbitmq-plugins enable NAME",
                    )
                )
            self._sendable(object_, desired.arguments)
            self.changes.append(CreateExchange(exchange=desired, delays=self._delays(desired.name)))
            return
        ours = self.owns.of_exchange(there) or not self.observed.complete
        if desired.name in (self.topology.retry_exchange, self.topology.parking_exchange) and not ours:
            self.findings.append(_foreign(object_, there))
            return
        differences = exchange_differences(desired, there)
        for difference in differences:
            self.findings.append(self._differs(object_, difference, there))
        if differences:
            return
        if ours:
            self.unchanged.append(("exchange", desired.name))
        else:
            self.used.append(UsedAsItIs(exchange=desired.name, owner=there.owner))

    def _delays(self, exchange: str) -> Mapping[str, NativeRetry]:
        """What is read back before the marker is declared; what is in arguments was compared already."""
        marker = exchange == self.topology.native_marker and self.topology.settings == "policies"
        return delays(self.topology) if marker else {}

    def _differs(self, object_: str, difference: Difference, there: Exchange | Queue) -> Finding:
        of = f" (it is owned by the topology {there.owner})" if there.owner not in (None, self.topology.name) else ""
        return refuse("differs", object_, f"{difference}{of}; it cannot be changed in place", difference=difference)

    def _queue(self, desired: Queue) -> None:
        object_ = f"queue {desired.name}"
        if desired.name in self.swaps:
            return
        there = self.there.queues.get(desired.name)
        if text := self.observed.unreadable.get(("queue", desired.name)):
            self.findings.append(refuse("differs", object_, f"{text}; it cannot be changed in place"))
            return
        if there is None:
            self._sendable(object_, desired.arguments)
            for text in refused_arguments(desired, self.observed.version):
                self.findings.append(refuse("not-on-this-release", object_, text, "leave the argument out"))
            self.changes.append(CreateQueue(queue=desired))
            return
        if self.observed.complete and not self.owns.of_queue(there):
            self.findings.append(_foreign(object_, there))
            return
        differences = queue_differences(desired, there)
        for difference in differences:
            self.findings.append(self._differs(object_, difference, there))
        if not differences:
            self.unchanged.append(("queue", desired.name))

    def _sendable(self, object_: str, arguments: Arguments) -> None:
        try:
            encode_table(arguments)
        except (TypeError, ValueError, struct.error) as error:
            self.findings.append(refuse("not-sendable", object_, f"its arguments cannot be sent over AMQP: {error}"))

    def _bindings(self) -> None:
        present = {binding.identity for binding in self.there.bindings}
        for binding in {binding.identity: binding for binding in self.desired.bindings}.values():
            self._sendable(f"binding {binding_name(binding)}", binding.arguments)
            if binding.identity in present:
                self.unchanged.append(("binding", binding_name(binding)))
            elif self._is_swapped(binding):
                continue
            elif self.observed.complete or self._is_new(binding):
                self.changes.append(Bind(binding=binding))
            else:
                self.changes.append(EnsureBinding(binding=binding))

    def _is_swapped(self, binding: Binding) -> bool:
        return binding.source == self.topology.retry_exchange and binding.destination in self.swaps

    def _is_new(self, binding: Binding) -> bool:
        ends = self.there.queues if binding.destination_type == "queue" else self.there.exchanges
        return binding.source not in self.there.exchanges or binding.destination not in ends

    def _policies(self) -> None:
        if not self.observed.complete:
            if self.desired.policies:
                self.findings.append(
                    refuse(
                        "policies-need-management",
                        f"policy {', '.join(self.desired.policies)}",
                        f"policies cannot be written over AMQP, and the management API is not used: "
                        f"{self.observed.source}",
                        "give --management-url, or write `settings: arguments` in the file",
                    )
                )
            return
        before = len(self.changes)
        for desired in self.desired.policies.values():
            there = self.there.policies.get(desired.name)
            if there is not None and not policy_differences(desired, there):
                self.unchanged.append(("policy", desired.name))
            else:
                self.changes.append(PutPolicy(policy=desired, replaces=there))
        foreign, present = [], []
        for there in self.there.policies.values():
            wanted = there.name in self.desired.policies
            if wanted or self.owns.of_policy(there):
                present.append(there)
                if not wanted and is_own_policy(there.name, self.topology.name):
                    self.changes.append(RemovePolicy(policy=there))
            else:
                foreign.append(there)
        queues = (*self.desired.queues.values(), *existing_queues(self.topology, self.there))
        self.findings += clashes(
            queues,
            self.desired.policies.values(),
            foreign,
            present,
            version=self.observed.version,
            existing={*self.topology.required_queues},
        )
        after = [*foreign, *self.desired.policies.values()]
        self.findings += hidden(self.topology, after)
        self.findings += shrinking(queues, self.there, after)
        tags = self.observed.tags
        if len(self.changes) > before and tags is not None and not tags & {"policymaker", "administrator"}:
            self.findings.append(
                refuse(
                    "missing-tag",
                    f"user {self.observed.user}",
                    "it has no policymaker tag, which writing a policy needs",
                    f"rabbitmqctl set_user_tags {self.observed.user} {' '.join(sorted(tags | {'policymaker'}))}",
                )
            )


def _foreign(object_: str, there: Exchange | Queue) -> Finding:
    if there.owner is not None:
        return refuse(
            "other-owner",
            object_,
            f"it is owned by the topology {there.owner}",
            "one topology owns it: take it out of one of the two files",
        )
    return refuse(
        "not-ours",
        object_,
        "it exists, and amqpflow did not create it",
        "give the one in the file another name, or delete this one once it is empty and unused",
    )
