"""Our own policies name each queue exactly: the names can be read back, and need no matching with every queue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from amqpflow.model.resources import Policy, Queue

from .matching import applies

_EXACT = re.compile(r"\^\((?:\?:)?((?:\\[^a-zA-Z0-9]|[^\\^$.|?*+()\[\]{}]|\|)+)\)\$")
_PART = re.compile(r"\\(.)|(\|)|([^\\|]+)", re.DOTALL)


@lru_cache(maxsize=4096)
def named_exactly(pattern: str) -> tuple[str, ...] | None:
    """Return the names in `^(?:a|b)$`; None for a pattern that is anything else."""
    whole = _EXACT.fullmatch(pattern)
    if whole is None:
        return None
    names = [""]
    for escaped, bar, plain in _PART.findall(whole[1]):
        if bar:
            names.append("")
        else:
            names[-1] += escaped or plain
    return tuple(names)


class ByName:
    """Policies, found by the name of a queue: of hundreds that name their queues exactly, only those that name it."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._exact: dict[str, list[Policy]] = {}
        self._others: list[Policy] = []
        for policy in policies:
            names = named_exactly(policy.pattern)
            if names is None:
                self._others.append(policy)
            else:
                for name in names:
                    self._exact.setdefault(name, []).append(policy)

    def near(self, name: str) -> list[Policy]:
        """Return those that may apply to a queue of this name, for `applies` and `working` to judge."""
        return [*self._exact.get(name, ()), *self._others]


def covered(policy: Policy, queues: Mapping[str, Queue], version: tuple[int, ...]) -> tuple[Queue, ...]:
    """Return the queues, of these by name, that a policy applies to."""
    names = named_exactly(policy.pattern)
    candidates = queues.values() if names is None else (queues[name] for name in names if name in queues)
    return tuple(queue for queue in candidates if applies(policy, queue, version))
