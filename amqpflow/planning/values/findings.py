"""What planning has to say against a plan, or beside it: a refusal stops the whole plan, a warning does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from amqpflow.model.diagnostic import Severity

from .differences import Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason; printed as `queue orders: what is wrong; what to do`."""

    code: str  #: stable, documented in docs/reference/plan.md
    severity: Severity
    object: str  #: queue orders.confirm
    message: str
    hint: str = ""
    difference: Difference | None = field(default=None, compare=False)  #: the attribute it is about; said in `message`

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.object}: {self.message}{hint}"


def refuse(code: str, object_: str, message: str, hint: str = "", difference: Difference | None = None) -> Finding:
    return Finding(
        code=code, severity=Severity.ERROR, object=object_, message=message, hint=hint, difference=difference
    )


def warn(code: str, object_: str, message: str, hint: str = "") -> Finding:
    return Finding(code=code, severity=Severity.WARNING, object=object_, message=message, hint=hint)


def named(kind: str, names: Sequence[str]) -> str:
    """queue a; queues a, b, c and 4 more"""
    if len(names) == 1:
        return f"{kind} {names[0]}"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{kind}s {', '.join(names[:3])}{more}"
