"""When RabbitMQ takes two definitions for the same, and how they differ when it does not.

A comparison that reports noise is not read. So: absent `x-queue-type` is classic (fact 7.13), all integers are one type
and a string is never a number (fact 7.1), key order does not matter, and our own stamp is not a difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from amqpflow.model.resources import STAMP, Arguments, Exchange, Policy, Queue

_PLAIN = frozenset({bool, float, int, str})
_WORDS = frozenset({"true", "false", "null", "undefined"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One attribute or argument that is not as the file says. None means that it is not there."""

    key: str
    observed: Any
    desired: Any

    def __str__(self) -> str:
        quoted = type(self.observed) is not type(self.desired)
        theirs = f"is {_shown(self.observed, quoted)}" if self.observed is not None else "is not set"
        ours = f"says {_shown(self.desired, quoted)}" if self.desired is not None else "does not set it"
        return f"{self.key} {theirs} on the broker, the file {ours}"


def same_value(one: Any, other: Any) -> bool:
    """Return whether RabbitMQ holds two argument values for equal: 1, True, "1" and 1.0 all differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    return type(one) is type(other) and bool(one == other)


def queue_differences(desired: Queue, observed: Queue) -> tuple[Difference, ...]:
    """Return what hinders a redeclare, or would be silently ignored by one (fact 7.2)."""
    attributes = _attributes(desired, observed, ("durable", "auto_delete", "exclusive"))
    if _identical(desired.arguments, observed.arguments):
        return tuple(attributes)
    return (*attributes, *_arguments(_typed(desired), _typed(observed)))


def exchange_differences(desired: Exchange, observed: Exchange) -> tuple[Difference, ...]:
    """Return what hinders a redeclare of an exchange.

    Further arguments of a foreign one, such as its owner's stamp, do not matter, except for the alternate exchange.
    """
    attributes = _attributes(desired, observed, ("type", "durable", "auto_delete", "internal"))
    theirs = dict(observed.arguments)
    if observed.owner != desired.owner and not observed.type.startswith("x-"):
        theirs = {key: theirs[key] for key in theirs if key == "alternate-exchange" or key in desired.arguments}
    return (*attributes, *_arguments(desired.arguments, theirs))


def policy_differences(desired: Policy, observed: Policy) -> tuple[Difference, ...]:
    """Return what a PUT of the policy would change."""
    attributes = _attributes(desired, observed, ("pattern", "priority", "apply_to"))
    return (*attributes, *_arguments(desired.definition, observed.definition))


def _attributes(desired: Any, observed: Any, names: tuple[str, ...]) -> Iterator[Difference]:
    for name in names:
        ours, theirs = getattr(desired, name), getattr(observed, name)
        if ours != theirs or isinstance(ours, bool) is not isinstance(theirs, bool):
            key = name.replace("_", "-") if name == "apply_to" else name
            yield Difference(key=key, observed=theirs, desired=ours)


def _arguments(desired: Arguments, observed: Arguments) -> Iterator[Difference]:
    for key in sorted((desired.keys() | observed.keys()) - {STAMP}):
        ours, theirs = desired.get(key), observed.get(key)
        if not same_value(ours, theirs):
            yield Difference(key=key, observed=theirs, desired=ours)


def _identical(one: Arguments, other: Arguments) -> bool:
    """Return whether arguments are the same without a doubt, as those of nearly all of thousands of queues are."""
    return one == other and all(type(value) is type(other[key]) and type(value) in _PLAIN for key, value in one.items())


def _typed(queue: Queue) -> Arguments:
    return {"x-queue-type": queue.type} | dict(queue.arguments)


def _shown(value: Any, quoted: bool) -> str:
    """Write a value as the broker lists it; a string in quotes where it could be taken for another value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and (not value or (quoted and (value.lstrip("-").isdigit() or value in _WORDS))):
        return f'"{value}"'
    return str(value)
