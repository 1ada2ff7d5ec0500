"""A limit that becomes tighter on a queue that exists takes messages out of it at once (fact 11.6f)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from amqpflow.model.resources import BrokerState, Policy, Queue

from .exact import ByName
from .findings import Finding, named, warn
from .policies import working

_LIMITS = ("max-length", "max-length-bytes")


def shrinking(queues: Iterable[Queue], there: BrokerState, policies: Iterable[Policy]) -> tuple[Finding, ...]:
    """
    Warn of limits that become tighter where the overflow is drop-head.

    Args:
        queues: those of the topology that may exist.
        there: the virtual host as it is.
        policies: all user policies as they will be, foreign ones included.
    """
    before, after, operators = map(ByName, (there.policies.values(), policies, there.operator_policies.values()))
    found: dict[str, list[str]] = {}
    for queue in queues:
        if queue.name in there.queues and before.near(queue.name) != after.near(queue.name):
            then, now, limiting = (working(each.near(queue.name), queue) for each in (before, after, operators))
            for text in _tighter(queue, then, now, limiting):
                found.setdefault(text, []).append(queue.name)
    return tuple(warn("limit-shrinks", named("queue", names), text) for text, names in found.items())


def _tighter(
    queue: Queue, before: tuple[Policy, ...], after: tuple[Policy, ...], operators: tuple[Policy, ...]
) -> Iterator[str]:
    if not _drops(queue, [*after, *operators]):
        return
    target = queue.arguments.get("x-dead-letter-exchange")
    for key in _LIMITS:
        old, new = _limit(queue, key, [*before, *operators]), _limit(queue, key, [*after, *operators])
        if new is not None and (old is None or new < old):
            effect = "is deleted at once" if target is None else "is dead-lettered at once, each message at most once"
            was = "now limited" if old is None else f"{old} before"
            yield f"{key} becomes {new} ({was}): of what it holds the oldest beyond that {effect}"


def _limit(queue: Queue, key: str, policies: Iterable[Policy]) -> int | None:
    """The smaller of argument and policies works (fact 11.6)."""
    values = [queue.arguments.get(f"x-{key}"), *(policy.definition.get(key) for policy in policies)]
    return min((each for each in values if isinstance(each, int) and not isinstance(each, bool)), default=None)


def _drops(queue: Queue, policies: Iterable[Policy]) -> bool:
    """Of overflow the argument works on a classic queue, the policy on a quorum queue (fact 11.6)."""
    own = queue.arguments.get("x-overflow")
    said = [policy.definition["overflow"] for policy in policies if "overflow" in policy.definition]
    working_values = [own] if own is not None and (queue.type == "classic" or not said) else said
    return not working_values or "drop-head" in working_values
