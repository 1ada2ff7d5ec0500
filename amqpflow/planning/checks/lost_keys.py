"""What a queue would lose without a foreign policy, and where in the topology file ours can carry it."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from amqpflow.model.own_policies import LENGTHS, parks
from amqpflow.model.resources import Policy, Queue
from amqpflow.model.routes import QueueRoutes
from amqpflow.model.units import format_duration
from amqpflow.planning.policies.effective import Effective, effective
from amqpflow.planning.policies.precedence import is_number, smaller

_HARMLESS_TIGHTER = frozenset({*LENGTHS, "message-ttl", "expires"})
"""Numbers of which the file may say a smaller one. A smaller delivery limit parks messages, a smaller consumer timeout
takes them from handlers: what those were is the application's to say."""

MOST_DELIVERIES = 1_000_000
_WHOLE = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class LostKeys:
    """The keys of a foreign policy that stop working when ours works instead."""

    lost: tuple[str, ...]
    possible: str = ""  #: what to write under the queue, in the topology file's language; "" when nothing can be
    impossible: tuple[tuple[str, str], ...] = ()  #: key, and why ours does not carry it
    tightened: tuple[str, ...] = ()  #: not lost: the file has a smaller number, in words

    def place(self, where: str) -> str:
        """Return advice: under queue orders in the file write `limits: {max_length: 5}`"""
        return f"under {where} in the file write `{self.possible}`"


def lost_keys(
    queue: Queue,
    ours: Policy,
    foreign: Policy,
    version: tuple[int, ...],
    *,
    own: QueueRoutes | None,
    operators: Iterable[Policy] = (),
    harmful: Container[str] = (),
) -> LostKeys:
    """Compare what works on a queue by a foreign policy with what would work by ours instead.

    A key is not lost when ours has the same value, when it has no effect on this queue anyway, when the file has a
    tighter length or TTL, or when it is `harmful` to a guarantee. RabbitMQ's default is no decision: a value that only
    the default replaces is lost. `own` are the routes of a queue that an application declared.
    """
    every = tuple(operators)
    theirs = effective(queue, [foreign], every, version=version)
    mine = effective(queue, [ours], every, version=version)
    lost, tightened = [], []
    for key in sorted(foreign.definition):
        for was in theirs.settings[key].possible:
            if was.source.policy != foreign:  # an argument, an operator policy or RabbitMQ decides it
                continue
            now = mine.settings.get(key)
            if key in harmful or (now is not None and now.is_surely(was.value)):
                continue
            number = now.value if now is not None and key in _HARMLESS_TIGHTER else None
            if is_number(number) and smaller(key, number, was.value, version):
                tightened.append(f"{key} {was.value} becomes {number}")
            else:
                lost.append(key)
    return _told(_Place(queue=queue, ours=ours, own=own), foreign, theirs, lost, tightened)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """The queue that a key is to be carried for."""

    queue: Queue
    ours: Policy
    own: QueueRoutes | None

    @property
    def existing(self) -> bool:
        return self.own is not None

    @property
    def quorum(self) -> bool:
        return self.queue.type == "quorum"

    @property
    def keeps(self) -> bool:
        """Return whether its dead letters are its application's to direct: our policy says nothing about them."""
        return self.own is not None and not parks(self.ours.definition, self.own.parking_queue)


def _told(place: _Place, foreign: Policy, theirs: Effective, lost: list[str], tightened: list[str]) -> LostKeys:
    wanted = {key: foreign.definition[key] for key in lost}
    if place.existing and wanted.keys() & set(LENGTHS) and theirs.value("overflow") != _overflow(place, wanted):
        # the key limits would bring reject-publish with it
        wanted["overflow"] = theirs.value("overflow")
    written: dict[str, Any] = {}
    impossible: list[tuple[str, str]] = []
    for key, value in wanted.items():
        why = _impossible(key, value, place)
        if why:
            impossible.append((key, why))
        else:
            _write(written, key, value, place)
    return LostKeys(
        lost=tuple(lost),
        possible=", ".join(_entries(written)),
        impossible=tuple(impossible),
        tightened=tuple(tightened),
    )


def _overflow(place: _Place, wanted: Mapping[str, Any]) -> Any:
    """Return what would work on the queue with these lengths written under `limits`, and no overflow."""
    overflow = wanted.get("overflow", place.ours.definition.get("overflow", "reject-publish"))
    definition = {**place.ours.definition, **wanted, "overflow": overflow}
    return effective(place.queue, [replace(place.ours, definition=definition)]).value("overflow")


def _impossible(key: str, value: Any, place: _Place) -> str:
    match key:
        case "expires":
            return "it deletes an unused queue with its messages"
        case "dead-letter-exchange" | "dead-letter-routing-key" | "dead-letter-strategy" if not place.keeps:
            return "ours sends what RabbitMQ gives up on to parking"
        case "overflow" if not place.existing:
            return "it is an argument of the queue"
        case "overflow" if place.quorum and value != "reject-publish" and not place.keeps:
            return "at-least-once dead-lettering needs reject-publish"
        case "overflow" if place.quorum and value not in ("reject-publish", "drop-head"):
            return "a quorum queue does not have it"
        case "delayed-retry-type" | "delayed-retry-min" | "delayed-retry-max":
            return "a retry policy with engine: native decides it"
        case "max-length" | "max-length-bytes":
            return "" if _is_whole(value, 1, _WHOLE) else "the file takes lengths from 1 on"
        case "consumer-timeout" if place.quorum:
            return "" if _is_whole(value, 1000, _WHOLE) else "the file takes consumer timeouts from 1s on"
        case "delivery-limit":
            return "" if _is_whole(value, 1, MOST_DELIVERIES) else "the file takes delivery limits from 1 to 1,000,000"
    return ""


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _write(written: dict[str, Any], key: str, value: Any, place: _Place) -> None:
    if key.startswith("dead-letter-") or (key == "overflow" and place.quorum and value == "drop-head"):
        written["dead_letters"] = "keep"
    match key:
        case "max-length":
            written.setdefault("limits", {})["max_length"] = value
        case "max-length-bytes":
            written.setdefault("limits", {})["max_length_bytes"] = f"{value}B"
        case "overflow":
            written.setdefault("limits", {})["overflow"] = value
        case "consumer-timeout" if place.quorum:
            written["consumer_timeout"] = format_duration(value)
        case "delivery-limit" if place.existing:
            written["delivery_limit"] = value
        case _:
            written.setdefault("policy", {})[key] = value


def _entries(written: Mapping[str, Any]) -> Iterator[str]:
    """Yield entries as flow mappings of YAML."""
    for key, value in written.items():
        if isinstance(value, Mapping):
            yield f"{key}: {{{', '.join(_entries(value))}}}"
        else:
            plain = isinstance(value, str) and value.replace("-", "").replace("_", "").isalnum()
            yield f"{key}: {value if plain else json.dumps(value)}"
