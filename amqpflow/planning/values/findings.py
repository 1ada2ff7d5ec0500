"""What planning finds wrong with a plan or a broker, and the objects that it speaks of.

A refusal stops the whole plan, a warning does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from amqpflow.model.diagnostic import Severity
from amqpflow.model.units import first_few

from .differences import Difference


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason; printed as `queue orders: what is wrong; what to do`."""

    code: str  #: stable, documented in docs/reference/plan.md
    severity: Severity
    ref: Ref
    message: str
    hint: str = ""
    difference: Difference | None = field(default=None, compare=False)  #: the attribute it is about; said in `message`

    @property
    def object(self) -> str:
        """Return the reference as text: queue orders.confirm"""
        return str(self.ref)

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.ref}: {self.message}{hint}"


def refuse(code: str, ref: Ref, message: str, hint: str = "", difference: Difference | None = None) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, ref=ref, message=message, hint=hint, difference=difference)


def warn(code: str, ref: Ref, message: str, hint: str = "") -> Finding:
    return Finding(code=code, severity=Severity.WARNING, ref=ref, message=message, hint=hint)
