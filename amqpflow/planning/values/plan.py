"""A plan is a value: a dry run is a plan that was not executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from amqpflow.model.diagnostic import Severity
from amqpflow.model.resources import Binding
from amqpflow.model.routes import CompiledTopology

from .approvals import Approval
from .changes import Change
from .differences import Difference
from .findings import Finding
from .guarantee import Guarantee
from .observation import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedAsItIs:
    """An exchange of the same definition that another program created: used, never changed, never deleted."""

    exchange: str
    owner: str | None  #: the topology that owns it, None when it was not amqpflow


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedBinding:
    """A binding of the file that exists, and whose it is."""

    binding: Binding
    origin: str  #: ours: removed with the topology; foreign: it was there before, and stays; unproven: may be either


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What apply does to one virtual host, in that order, unless something in `findings` refuses it."""

    topology: CompiledTopology
    observed: Observation = field(repr=False, compare=False)  #: the topology was compared with
    changes: tuple[Change, ...] = ()
    unchanged: tuple[tuple[str, str], ...] = ()  #: (kind, name) of what is as the file says
    used: tuple[UsedAsItIs, ...] = ()
    listed: tuple[ListedBinding, ...] = ()  #: bindings of the file that exist, but for those of our own two exchanges
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    guarantees: tuple[Guarantee, ...] = ()  #: what holds on each `existing` queue, and what does not
    purpose: str = "apply"  #: apply, prune, destroy, adopt or disown: which command makes this of it
    needs: tuple[Approval, ...] = ()
    """What needs consent: replace, delete; delete:binding NAME for one that may be an application's."""
    replaced: Mapping[str, tuple[Difference, ...]] = field(default_factory=dict)
    """Retry queues that are swapped for one with other arguments, and what differs."""
    depths: Mapping[str, int] = field(default_factory=dict, compare=False)  #: ready messages of queues that differ
    cluster: str = field(default="", compare=False)
    """The broker's cluster name, which other clusters may have and each node may have another; empty when not known."""
    cluster_id: str = field(default="", compare=False)  #: RabbitMQ's own id of the cluster; empty when not known
    address: Any = field(
        default=None, repr=False, compare=False, metadata={"saved": False}
    )  #: the broker it was made for; not looked into here

    @property
    def broker(self) -> str:
        """Return product and version: RabbitMQ 4.3.6"""
        return self.observed.broker

    @property
    def required(self) -> tuple[str, ...]:
        """Return what needs consent as words of `allow`."""
        return tuple(map(str, self.needs))

    @property
    def vhost(self) -> str:
        return self.observed.vhost

    @property
    def complete(self) -> bool:
        """Return whether the management API was read; False: AMQP alone, without bindings, policies and owners."""
        return self.observed.complete

    @property
    def source(self) -> str:
        """Return the management API's URL, or why it was not used."""
        return self.observed.source

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """Return every reason why apply does nothing at all; empty when it may start."""
        return tuple(each for each in self.findings if each.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.severity is Severity.WARNING)

    @property
    def count(self) -> Counter[tuple[str, str]]:
        """Return how many changes of each (action, kind)."""
        return Counter((change.action, change.kind) for change in self.changes)

    @property
    def nothing_to_do(self) -> bool:
        """Return whether nothing differs. Bindings that cannot be read are bound again all the same."""
        return all(change.action == "ensure" for change in self.changes)
