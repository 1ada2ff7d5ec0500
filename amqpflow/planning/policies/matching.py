"""Which policy works on what, as RabbitMQ decides it.

Of all user policies that match an object the one with the highest priority works alone (fact 11.6b), and so among
operator policies, whose keys are then merged in. A policy that holds a key the queue's type does not know is passed
over for that queue as a whole (fact 11.6d). https://www.rabbitmq.com/docs/policies
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from amqpflow.model.resources import Exchange, Policy, Queue

_STREAM_KEYS = frozenset({"max-age", "stream-max-segment-size-bytes", "initial-cluster-size"})
_UNKNOWN_KEYS = {
    "classic": _STREAM_KEYS | {"delivery-limit", "dead-letter-strategy", "target-group-size"},
    "quorum": _STREAM_KEYS
    | {
        "queue-mode",
        "ha-mode",
        "ha-params",
        "ha-sync-mode",
        "ha-promote-on-shutdown",
        "ha-promote-on-failure",
        "queue-master-locator",
    },
}
"""Keys that make RabbitMQ pass a policy over for queues of a type (fact 11.20)."""
_UNKNOWN_BEFORE_4 = frozenset({"queue-leader-locator"})
_UNKNOWN_FROM_4 = frozenset({"max-in-memory-length", "max-in-memory-bytes"})


def working(policies: Iterable[Policy], target: Queue | Exchange, version: tuple[int, ...] = ()) -> tuple[Policy, ...]:
    """Return the policy that works on a queue or exchange, whether it exists already or not.

    More than one when the highest priority is shared: which of them wins differs between releases (fact 11.6b).
    """
    matching = [policy for policy in policies if applies(policy, target, version)]
    highest = max((policy.priority for policy in matching), default=0)
    return tuple(policy for policy in matching if policy.priority == highest)


def may_work(policies: Iterable[Policy], target: Queue | Exchange, version: tuple[int, ...] = ()) -> tuple[Policy, ...]:
    """Return the policies that may work on a queue or exchange, the highest priority first.

    Where the pattern of the highest cannot be read here, it may not match, and then the next works.
    """
    left = [policy for policy in policies if applies(policy, target, version)]
    found: list[Policy] = []
    while left and not any(surely_matches(policy, target) for policy in found):
        highest = max(policy.priority for policy in left)
        found += [policy for policy in left if policy.priority == highest]
        left = [policy for policy in left if policy.priority < highest]
    return tuple(found)


def alternatives(policies: tuple[Policy, ...], target: Queue | Exchange) -> tuple[Policy | None, ...]:
    """Return each of the policies that `may_work`, one of which does; None where it may be that none does."""
    return policies if any(surely_matches(each, target) for each in policies) else (*policies, None)


def applies(policy: Policy, target: Queue | Exchange, version: tuple[int, ...]) -> bool:
    """Return whether RabbitMQ would consider the policy for this object at all; a version of () is a new one."""
    return (
        _covers(policy.apply_to, target)
        and not _unknown(policy, target, version)
        and _matches(policy.pattern, target.name)
    )


def passed_over(policy: Policy, queue: Queue, version: tuple[int, ...] = ()) -> tuple[str, ...]:
    """Return the keys because of which a policy that matches a queue has no effect on it at all (fact 11.6d)."""
    unknown = _unknown(policy, queue, version)
    matches = unknown and _covers(policy.apply_to, queue) and _matches(policy.pattern, queue.name)
    return tuple(sorted(unknown)) if matches else ()


def _unknown(policy: Policy, target: Queue | Exchange, version: tuple[int, ...]) -> frozenset[str]:
    if not isinstance(target, Queue):
        return frozenset()
    keys = _UNKNOWN_KEYS.get(target.type, frozenset())
    if target.type == "classic":
        keys = keys | (_UNKNOWN_BEFORE_4 if version and version < (4,) else _UNKNOWN_FROM_4)
    return keys & policy.definition.keys()


def surely_matches(policy: Policy, target: Queue | Exchange) -> bool:
    """Return whether the pattern of a policy that `applies` is known to match: one that cannot be read here is not."""
    compiled = _compiled(policy.pattern)
    return compiled is not None and not _is_read_otherwise(compiled, target.name)


def _covers(apply_to: str, target: Queue | Exchange) -> bool:
    if isinstance(target, Exchange):
        return apply_to in ("all", "exchanges")
    return apply_to in ("all", "queues", f"{target.type}_queues")


_SAME = re.compile(
    rb"""(?:\(\?i\))?(?:
        \\(?:[dDwWsSbBAntrf]|[^a-zA-Z0-9\x80-\xff])
        | \[\^?\]?(?:\\(?:[dDwWsSbntrf]|[^a-zA-Z0-9\x80-\xff])|(?!--|&&|~~|\|\|)[^\\\[\]])*\]
        | \((?![?*]) | \(\?(?:[:=!]|<[=!]|P<[A-Za-z_]\w{0,30}>) | \)
        | (?:[*+?]|\{\d{1,4}(?:,\d{0,4})?\})\??(?![*+?{])
        | [^\\\[()*+?{]
    )*""",
    re.VERBOSE | re.DOTALL,
)
"""What PCRE and Python read the same. Python takes `[[:alpha:]]`, `{,3}` or `\\Z` too, for something else.

No text has two readings by it, so that it is quick. It is not possessive, which Python 3.11.2 gets wrong."""

_OF_LETTERS = re.compile(rb"\\[dDwWsSbB]|\A\(\?i\)")


def _matches(pattern: str, name: str) -> bool:
    compiled = _compiled(pattern)
    if compiled is None:
        return True
    return _is_read_otherwise(compiled, name) or compiled.search(name.encode()) is not None


def _is_read_otherwise(compiled: re.Pattern[bytes], name: str) -> bool:
    """Tell where RabbitMQ reads a name otherwise: it takes the bytes of UTF-8 for letters of Latin-1."""
    return not name.isascii() and _OF_LETTERS.search(compiled.pattern) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[bytes] | None:
    # RabbitMQ's are PCRE: what may be read otherwise here is rare, and then we would rather warn once too often
    try:
        encoded = pattern.encode()
        return re.compile(encoded) if _SAME.fullmatch(encoded) else None
    except (re.error, OverflowError, RecursionError, UnicodeEncodeError):
        return None
