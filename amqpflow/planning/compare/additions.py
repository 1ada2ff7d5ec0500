"""Compare each object of the file with the broker: missing, matching, to be changed in place, or in the way."""

from __future__ import annotations

import shlex
import struct
from collections.abc import Collection, Iterator, Mapping

from amqpflow.model.resources import Arguments, Exchange, Queue
from amqpflow.model.routes import CompiledTopology, NativeRetry
from amqpflow.model.wire import encode_table
from amqpflow.planning.checks.existing_queues import existing_queues
from amqpflow.planning.checks.policy_conflicts import policy_conflicts
from amqpflow.planning.checks.shield import broad_policies
from amqpflow.planning.ownership.ownership import Ownership, is_own_policy
from amqpflow.planning.values.changes import (
    Addition,
    Bind,
    CreateExchange,
    CreateQueue,
    EnsureBinding,
    PutPolicy,
    RemovePolicy,
)
from amqpflow.planning.values.differences import Difference, exchange_differences, policy_differences, queue_differences
from amqpflow.planning.values.findings import Finding, Ref, refuse
from amqpflow.planning.values.observation import Observation
from amqpflow.planning.values.plan import UsedAsItIs

from .delayed_retry import delays, hidden
from .release_support import refused_arguments
from .undeclared_queues import needed_exchanges, needed_queues, undeclared_queue_findings


def required_objects(desired: CompiledTopology) -> tuple[frozenset[str], frozenset[str]]:
    """Return the exchanges and queues that a topology refers to without declaring them: they must exist."""
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


class Additions:
    """Compares the objects of a topology as it fits the broker. `compare` fills what it holds.

    `swapped` are retry queues that are replaced by steps of their own, with their bindings: they are left out.
    """

    def __init__(
        self, topology: CompiledTopology, observed: Observation, owns: Ownership, swapped: Collection[str]
    ) -> None:
        self.topology, self.observed, self.owns, self.swapped = topology, observed, owns, swapped
        self.desired, self.there = topology.desired, observed.state
        self.changes: list[Addition] = []
        self.unchanged: list[tuple[str, str]] = []
        self.used: list[UsedAsItIs] = []
        self.findings: list[Finding] = []

    def compare(self) -> None:
        self._outside()
        self.findings += undeclared_queue_findings(self.topology, self.observed)
        for exchange in self.desired.exchanges.values():
            self._exchange(exchange)
        for queue in self.desired.queues.values():
            self._queue(queue)
        self._bindings()
        self._policies()

    def _outside(self) -> None:
        exchanges, queues = required_objects(self.topology)
        for kind, names in (("exchange", exchanges), ("queue", queues)):
            for name in sorted(names - self.there.things(kind).keys()):
                hint = "create it first, or apply the topology that owns it"
                self._refuse("missing", Ref(kind, name), "it does not exist", hint)

    def _refuse(self, code: str, ref: Ref, message: str, hint: str = "") -> None:
        self.findings.append(refuse(code, ref, message, hint))

    def _exchange(self, desired: Exchange) -> None:
        ref = Ref("exchange", desired.name)
        there = self.there.exchanges.get(desired.name)
        if text := self.observed.unreadable.get(("exchange", desired.name)):
            self._refuse("differs", ref, f"{text}; it cannot be changed in place")
            return
        if there is None:
            if not self.observed.has_exchange_type(desired.type):
                hint = "a plugin provides it: rabbitmq-plugins enable NAME"
                self._refuse("exchange-type", ref, f"this broker has no exchange type {desired.type}", hint)
            self._sendable(ref, desired.arguments)
            self.changes.append(CreateExchange(exchange=desired, delays=self._delays(desired.name)))
            return
        ours = self.owns.of_exchange(there) or not self.observed.complete
        # the marker says that this broker delays what is rejected: one that another program made says nothing
        own = (self.topology.retry_exchange, self.topology.parking_exchange, self.topology.native_marker)
        if desired.name in own and not ours:
            self.findings.append(self._foreign(there, exchange_differences(desired, there)))
            return
        differences = exchange_differences(desired, there)
        external = "" if ours else f"if others declare it, write {{external: true}} for {desired.name} in the file"
        for difference in differences:
            self.findings.append(self._differs(ref, difference, there, external))
        if differences:
            return
        if ours:
            self.unchanged.append(("exchange", desired.name))
        else:
            self.used.append(UsedAsItIs(exchange=desired.name, owner=there.owner))

    def _delays(self, exchange: str) -> Mapping[str, NativeRetry]:
        """Return what is read back before the marker is declared; what is in arguments was compared already."""
        marker = exchange == self.topology.native_marker and self.topology.settings == "policies"
        return delays(self.topology) if marker else {}

    def _differs(self, ref: Ref, difference: Difference, there: Exchange | Queue, hint: str = "") -> Finding:
        of = f" (it is owned by the topology {there.owner})" if there.owner not in (None, self.topology.name) else ""
        text = f"{difference}{of}; it cannot be changed in place"
        return refuse("differs", ref, text, hint, difference=difference)

    def _queue(self, desired: Queue) -> None:
        ref = Ref("queue", desired.name)
        if desired.name in self.swapped:
            return
        there = self.there.queues.get(desired.name)
        if text := self.observed.unreadable.get(("queue", desired.name)):
            self._refuse("differs", ref, f"{text}; it cannot be changed in place")
            return
        if there is None:
            self._sendable(ref, desired.arguments)
            for text in refused_arguments(desired, self.observed.version):
                self._refuse("not-on-this-release", ref, text, "leave the argument out")
            self.changes.append(CreateQueue(queue=desired))
            return
        if self.observed.complete and not self.owns.of_queue(there):
            self.findings.append(self._foreign(there, queue_differences(desired, there)))
            return
        differences = queue_differences(desired, there)
        for difference in differences:
            self.findings.append(self._differs(ref, difference, there))
        if not differences:
            self.unchanged.append(("queue", desired.name))

    def _foreign(self, there: Exchange | Queue, differences: tuple[Difference, ...]) -> Finding:
        """Refuse an object that has a name of the file, and that amqpflow did not create."""
        kind = "queue" if isinstance(there, Queue) else "exchange"
        ref = Ref(kind, there.name)
        if there.owner is not None:
            hint = "only one topology can own it: remove it from one of the two files"
            return refuse("other-owner", ref, f"it is owned by the topology {there.owner}", hint)
        hint = "; ".join(self._ways_out(kind, there.name, differences))
        return refuse("not-ours", ref, "it exists, and amqpflow did not create it", hint)

    def _ways_out(self, kind: str, name: str, differences: tuple[Difference, ...]) -> Iterator[str]:
        """Yield what to do about it, each with when it fits."""
        if kind == "exchange" and name == self.topology.native_marker:
            yield "delete it: apply declares it after verifying that the broker delays rejected messages"
            return
        routes = self.topology.routes.get(name) if kind == "queue" else None
        if routes is not None:
            yield (
                f"if an application declares it, write `existing: true` under {name} in the file: it stays as it is, "
                "and retries and parking are built around it"
            )
        command = f"amqpflow adopt {shlex.quote(self.topology.file)} {kind} {shlex.quote(name)}"
        if differences:
            yield f"`{command}` cannot take it over, because it differs from the file: {differences[0]}"
        else:
            yield f"to let this topology own it, and remove it later: `{command}`"
        if routes is not None:
            yield "if the two are unrelated, give the one in the file another name"
            return
        if name == self.topology.retry_exchange:
            key = "naming: {retry_exchange: NAME}"
        elif name == self.topology.parking_exchange:
            key = "naming: {parking_exchange: NAME}"
        elif name in self.topology.parking_queues:
            key = "parking: {queue: NAME}` under its work queue, or `naming: {parking: TEMPLATE}"
        else:
            key = "naming: {retry: TEMPLATE}"
        yield f"if the two are unrelated, `{key}` gives the one in the file another name"

    def _sendable(self, ref: Ref, arguments: Arguments) -> None:
        try:
            encode_table(arguments)
        except (TypeError, ValueError, struct.error) as error:
            self._refuse("not-sendable", ref, f"its arguments cannot be sent over AMQP: {error}")

    def _bindings(self) -> None:
        present = {binding.identity for binding in self.there.bindings}
        for identity, binding in {binding.identity: binding for binding in self.desired.bindings}.items():
            if identity in present:
                self.unchanged.append(("binding", binding.name))
                continue
            if binding.source == self.topology.retry_exchange and binding.destination in self.swapped:
                continue
            self._sendable(Ref("binding", binding.name), binding.arguments)
            ends = self.there.things(binding.destination_type)
            is_new = binding.source not in self.there.exchanges or binding.destination not in ends
            change = Bind if self.observed.complete or is_new else EnsureBinding
            self.changes.append(change(binding=binding))

    def _policies(self) -> None:
        if not self.observed.complete:
            if self.desired.policies:
                self._refuse(
                    "policies-need-management",
                    Ref("policy", ", ".join(self.desired.policies)),
                    f"policies cannot be written over AMQP, and the management API is not used: {self.observed.source}",
                    "give `management_url`, or write `settings: arguments` in the file",
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
        self.findings += policy_conflicts(
            queues,
            self.desired.policies.values(),
            foreign,
            present,
            version=self.observed.version,
            topology=self.topology,
            operators=self.there.operator_policies.values(),
            broad=broad_policies(self.topology, self.observed),
        )
        self.findings += hidden(self.topology, [*foreign, *self.desired.policies.values()])
        tags = self.observed.tags
        if len(self.changes) > before and tags is not None and not tags & {"policymaker", "administrator"}:
            self._refuse(
                "missing-tag",
                Ref("user", self.observed.user),
                "it lacks the policymaker tag, which writing a policy requires",
                f"rabbitmqctl set_user_tags {self.observed.user} {' '.join(sorted(tags | {'policymaker'}))}",
            )
