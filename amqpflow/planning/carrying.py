"""What a queue would lose without a foreign policy, and where in the topology file ours can carry it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from amqpflow.model.duration import format_duration
from amqpflow.model.resources import Policy, Queue

from .effective import effective
from .precedence import SMALLER, smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrying:
    """The keys of a foreign policy that stop working when ours works instead."""

    lost: tuple[str, ...]
    possible: str = ""  #: what to write under the queue, in the topology file's language; "" when nothing can be
    impossible: tuple[tuple[str, str], ...] = ()  #: key, and why ours does not carry it

    def place(self, where: str) -> str:
        """Under queue orders write `limits: {max_length: 5}`"""
        return f"under {where} in the file write `{self.possible}`"


def carrying(queue: Queue, ours: Policy, foreign: Policy, version: tuple[int, ...], *, existing: bool) -> Carrying:
    """
    Compare what works on a queue by a foreign policy with what works by ours.

    A key is not lost when the same value works, or a tighter one, or when it has no effect on this queue anyway.
    """
    theirs = effective(queue, [foreign], version=version)
    mine = effective(queue, [ours], version=version)
    lost = []
    for key in sorted(foreign.definition):
        was = theirs.settings[key]
        if was.source.policy is None:  # an argument, or RabbitMQ, decides it
            continue
        now = mine.settings.get(key)
        kept = now is not None and (
            now.is_surely(was.value)
            or (key in SMALLER and now.value is not None and smaller(key, now.value, was.value, version))
        )
        if not kept:
            lost.append(key)
    written: dict[str, Any] = {}
    impossible: list[tuple[str, str]] = []
    for key in lost:
        why = _impossible(key, foreign.definition[key], queue, existing)
        if why:
            impossible.append((key, why))
        else:
            _write(written, key, foreign.definition[key], existing)
    return Carrying(lost=tuple(lost), possible=", ".join(_entries(written)), impossible=tuple(impossible))


def _impossible(key: str, value: Any, queue: Queue, existing: bool) -> str:
    match key:
        case "expires":
            return "it deletes an unused queue with its messages"
        case "dead-letter-exchange" | "dead-letter-routing-key" | "dead-letter-strategy":
            return "ours sends what RabbitMQ gives up on to parking"
        case "overflow" if queue.type == "quorum" and value != "reject-publish":
            return "at-least-once dead-lettering needs reject-publish"
        case "overflow" if not existing:
            return "it is an argument of the queue"
        case "delayed-retry-type" | "delayed-retry-min" | "delayed-retry-max":
            return "a retry policy with engine: native decides it"
    return ""


def _write(written: dict[str, Any], key: str, value: Any, existing: bool) -> None:
    match key:
        case "max-length":
            written.setdefault("limits", {})["max_length"] = value
        case "max-length-bytes":
            written.setdefault("limits", {})["max_length_bytes"] = f"{value}B"
        case "overflow":
            written.setdefault("limits", {})["overflow"] = value
        case "consumer-timeout" if isinstance(value, int) and value >= 1000:
            written["consumer_timeout"] = format_duration(value)
        case "delivery-limit" if existing:
            written["delivery_limit"] = value
        case _:
            written.setdefault("policy", {})[key] = value


def _entries(written: Mapping[str, Any]) -> Iterator[str]:
    """As flow mappings of YAML."""
    for key, value in written.items():
        if isinstance(value, Mapping):
            yield f"{key}: {{{', '.join(_entries(value))}}}"
        else:
            plain = isinstance(value, str) and value.replace("-", "").replace("_", "").isalnum()
            yield f"{key}: {value if plain else json.dumps(value)}"
