"""What planning finds wrong with a plan or a broker: a refusal stops the whole plan, a warning does not."""

from __future__ import annotations

from dataclasses import dataclass, field

from amqpflow.model.diagnostic import Severity

from .differences import Difference
from .ref import Ref


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
