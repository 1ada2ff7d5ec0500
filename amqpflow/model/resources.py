"""The objects of a broker: exchanges, queues, bindings and policies, and a snapshot of them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STAMP = "x-amqpflow-topology"
"""The argument by which amqpflow recognises what it created: it holds the topology's name.

RabbitMQ stores unknown arguments and never compares them (facts 7.2 and 15)."""

Arguments = Mapping[str, Any]

Flag = Any
"""True or false. From imported definitions RabbitMQ takes any other JSON value, too, and `"undefined"` for a key that
was left out (fact 17): it is kept as it is, so that it differs from both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An exchange of a virtual host."""

    name: str
    type: str  #: direct, topic, fanout, headers or x-...
    durable: Flag = True
    auto_delete: Flag = False
    internal: Flag = False
    arguments: Arguments = field(default_factory=dict)

    @property
    def owner(self) -> str | None:
        """The topology that created it, None for a foreign exchange."""
        return _text(self.arguments.get(STAMP))

    @property
    def alternate_exchange(self) -> str | None:
        """The exchange for messages that no binding takes; None when there is none."""
        return _text(self.arguments.get("alternate-exchange"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue of a virtual host. `arguments` always holds x-queue-type when we declare it (fact 7.13)."""

    name: str
    durable: Flag = True
    auto_delete: Flag = False
    exclusive: Flag = False
    arguments: Arguments = field(default_factory=dict)

    @property
    def type(self) -> str:
        """classic, quorum or stream; a queue without the argument is classic."""
        return str(self.arguments.get("x-queue-type", "classic"))

    @property
    def owner(self) -> str | None:
        """The topology that created it, None for a foreign queue."""
        return _text(self.arguments.get(STAMP))


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A binding. Its source, destination, key and arguments together are its identity."""

    source: str
    destination: str
    destination_type: str = "queue"  #: queue or exchange
    routing_key: str = ""
    arguments: Arguments = field(default_factory=dict)

    @property
    def identity(self) -> tuple[str, str, str, str, str]:
        """A hashable key that is equal exactly when RabbitMQ holds two bindings for one."""
        arguments = _canonical(self.arguments) if self.arguments else "{}"
        return (self.source, self.destination_type, self.destination, self.routing_key, arguments)

    @property
    def name(self) -> str:
        """Its name for people, which RabbitMQ does not know: orders.events -> orders.confirm (order.placed)"""
        key = f" ({self.routing_key})" if self.routing_key else ""
        terms = ", ".join(f"{key}={value}" for key, value in sorted(self.arguments.items()))
        return f"{self.source} -> {self.destination}{key}{f' [{terms}]' if terms else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy: of all that match an object only the one with the highest priority works (fact 11.6b)."""

    name: str
    pattern: str  #: a regular expression, unanchored unless it says so
    definition: Arguments
    priority: float = 0  #: of others it may be 1.5 (fact 11.6b)
    apply_to: str = "queues"  #: all, exchanges, queues, classic_queues, quorum_queues, streams


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerState:
    """A snapshot of one virtual host, or what a topology wants of it. Keys are the objects' names."""

    exchanges: Mapping[str, Exchange] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    policies: Mapping[str, Policy] = field(default_factory=dict)
    operator_policies: Mapping[str, Policy] = field(default_factory=dict)

    def things(self, kind: str) -> Mapping[str, Exchange | Queue]:
        """Return its queues for the kind queue, else its exchanges."""
        return self.queues if kind == "queue" else self.exchanges


def _text(value: Any) -> str | None:
    """Read a name in an argument. A value that is not a string, which only others write, names nothing."""
    return value if isinstance(value, str) else None


def _canonical(value: Any) -> str:
    """Return equal texts for equal values: the keys of tables have no order, at any depth."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_canonical, value)) + "]"
    return repr(value)
