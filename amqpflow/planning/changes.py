"""What apply can do to a broker: a closed family. What would replace or delete a queue is a Finding, not a change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from amqpflow.model.resources import Binding, Exchange, Policy, Queue

from .equality import Difference, policy_differences


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateExchange:
    """exchange.declare"""

    kind: ClassVar[str] = "exchange"
    action: ClassVar[str] = "create"
    exchange: Exchange

    @property
    def name(self) -> str:
        return self.exchange.name


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateQueue:
    """queue.declare"""

    kind: ClassVar[str] = "queue"
    action: ClassVar[str] = "create"
    queue: Queue

    @property
    def name(self) -> str:
        return self.queue.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """queue.bind or exchange.bind"""

    kind: ClassVar[str] = "binding"
    action: ClassVar[str] = "create"
    binding: Binding

    @property
    def name(self) -> str:
        return binding_name(self.binding)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureBinding:
    """queue.bind of what may be bound already: bindings cannot be read over AMQP, and binding twice changes nothing."""

    kind: ClassVar[str] = "binding"
    action: ClassVar[str] = "ensure"
    binding: Binding

    @property
    def name(self) -> str:
        return binding_name(self.binding)


@dataclass(frozen=True, slots=True, kw_only=True)
class PutPolicy:
    """PUT /api/policies: a new policy of ours, or new values for one."""

    kind: ClassVar[str] = "policy"
    policy: Policy
    replaces: Policy | None = None

    @property
    def action(self) -> str:
        return "create" if self.replaces is None else "update"

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What an update changes; empty for a new policy."""
        return () if self.replaces is None else policy_differences(self.policy, self.replaces)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePolicy:
    """DELETE /api/policies of one of our own that the file has no use for any more. No message is touched by it."""

    kind: ClassVar[str] = "policy"
    action: ClassVar[str] = "delete"
    policy: Policy

    @property
    def name(self) -> str:
        return self.policy.name


Change = CreateExchange | CreateQueue | Bind | EnsureBinding | PutPolicy | RemovePolicy


def label(change: Change) -> str:
    """queue orders.confirm"""
    return f"{change.kind} {change.name}"


def binding_name(binding: Binding) -> str:
    """A binding has no name of its own: orders.events -> orders.confirm (order.placed)"""
    return f"{binding.source} -> {binding.destination}" + "".join(_binding_terms(binding))


def _binding_terms(binding: Binding) -> Iterator[str]:
    if binding.routing_key:
        yield f" ({binding.routing_key})"
    if binding.arguments:
        terms = ", ".join(f"{key}={value}" for key, value in sorted(binding.arguments.items()))
        yield f" [{terms}]"
