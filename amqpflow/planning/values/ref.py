"""References to what planning speaks of: one object, or several of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amqpflow.model.units import first_few


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to an object, or to several of one kind; printed as `queue a`, or `queues a, b, c and 4 more`."""

    kind: str  #: queue, exchange, binding, policy, topology, user or global parameter
    name: str
    more: tuple[str, ...] = ()  #: further names

    @classmethod
    def of(cls, kind: str, names: Sequence[str]) -> Ref:
        first, *more = names or ("",)
        return cls(kind, first, tuple(more))

    def __str__(self) -> str:
        if not self.more:
            return f"{self.kind} {self.name}".strip()
        return f"{self.kind}s {first_few((self.name, *self.more), 3)}"
