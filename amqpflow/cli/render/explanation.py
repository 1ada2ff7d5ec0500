"""Show the settings in effect on a queue, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amqpflow.cli.safe import safe, said, with_options
from amqpflow.model.units import format_duration
from amqpflow.planning.policies.effective import Contender, Setting
from amqpflow.planning.reports.explain import Explanation
from amqpflow.services.loading.topology import Topology

from .colors import paint
from .table import table
from .values import json_value, picked

VERSION = 1
_MILLISECONDS = frozenset({"message-ttl", "expires", "consumer-timeout", "delayed-retry-min", "delayed-retry-max"})
_NOTHING = {
    "delivery-limit": "no limit",
    "max-length": "no limit",
    "max-length-bytes": "no limit",
    "message-ttl": "never",
    "expires": "never",
    "dead-letter-exchange": "none: messages are deleted",
    "dead-letter-routing-key": "the message's own",
    "max-priority": "no priorities",
}


def explanation_text(explanation: Explanation, topology: Topology, *, color: bool) -> str:
    """Return a line for each setting with what it overrides, then what the file does not get, then notes."""
    settings = explanation.effective.settings.values()
    rows = [
        ("SETTING", "VALUE", "SOURCE"),
        *((safe(each.key), safe(_value(each)), safe(_source(each))) for each in settings),
    ]
    keys = max(len(row[0]) for row in rows)
    head, *shown = table(lambda: rows)
    lines = [safe(_title(explanation, topology)), "", f"  {head}"]
    for line, setting in zip(shown, settings, strict=True):
        lines.append(f"  {line}")
        lines += [paint(f"  {'':<{keys}}    {safe(text)}", "cyan", color) for text in _beside(setting)]
    lines.append("")
    if explanation.unmet:
        lines.append("Asked for in the file, but not in effect:")
        for each in explanation.unmet:
            lines.append(
                f"  {paint('!', 'red', color)} "
                + safe(f"{each.key}: wanted {_shown(each.key, each.wanted)}, works {_shown(each.key, each.works)}")
            )
            lines += [f"      {said(each.why)}", f"      {said(each.hint)}"]
        lines.append("")
    if explanation.guarantees:
        lines.append("Guarantees on this existing queue:")
        for promise in explanation.guarantees:
            mark = {True: paint("+", "green", color), False: paint("-", "red", color), None: "?"}[promise.holds]
            lines.append(f"  {mark} {safe(f'{promise.name}: {promise.why}')}")
        lines.append("")
    lines += [f"Note: {said(each)}." for each in explanation.notes]
    return "\n".join(lines).rstrip()


def explanation_object(explanation: Explanation, topology: Topology) -> dict[str, Any]:
    """Return the explanation for JSON. Within one `version`, keys are only added."""
    works = explanation.effective
    return {
        "version": VERSION,
        "topology": topology.name,
        "file": topology.file,
        "broker": explanation.observed.broker if explanation.exists is not None else None,
        "release": explanation.observed.release or None,
        "vhost": explanation.observed.vhost,
        "complete": explanation.observed.complete,
        **picked(explanation, "queue", "role"),
        "work_queues": list(explanation.work_queues),
        "exists": explanation.exists,
        "settings": [
            {
                "key": each.key,
                "value": json_value(each.value),
                "source": _source_object(each.possible[0]),
                "certain": each.certain,
                "possible": [_contender(one) for one in each.possible],
                "overruled": [_contender(one) | {"why": one.why} for one in each.overruled],
            }
            for each in works.settings.values()
        ],
        "policies": [each.name for each in works.policies],
        "operator_policies": [each.name for each in works.operator_policies],
        "hidden_policies": [each.name for each in works.hidden],
        "passed_over": [{"policy": each.policy.name, "keys": list(each.keys)} for each in works.passed_over],
        "unmet": [
            {
                "key": each.key,
                "wanted": json_value(each.wanted),
                "works": json_value(each.works),
                "why": with_options(each.why),
                "hint": with_options(each.hint),
            }
            for each in explanation.unmet
        ],
        "guarantees": [
            {"name": each.name, "holds": each.holds, "why": with_options(each.why)} for each in explanation.guarantees
        ],
        "notes": [with_options(each) for each in explanation.notes],
    }


def _title(explanation: Explanation, topology: Topology) -> str:
    of = ", ".join(explanation.work_queues)
    role = explanation.role if explanation.role == "work queue" else f"{explanation.role} of {of}"
    if explanation.exists is None:
        release = explanation.observed.release
        where = f"computed from {topology.file} only" + (f", for RabbitMQ {release}" if release else "")
    else:
        where = f"on {explanation.observed.broker}, virtual host {explanation.observed.vhost}"
    return f"Queue {explanation.queue}, {role} of topology {topology.name}, {where}"


def _beside(setting: Setting) -> Iterator[str]:
    for each in setting.possible[1:]:
        doubtful = any(not one.source.certain for one in setting.possible)
        why = "only RabbitMQ can evaluate a pattern" if doubtful else "the priorities are equal"
        yield f"or {_shown(setting.key, each.value)} of {each.source.phrase}: {why}"
    word = "not" if setting.known else "perhaps"
    for each in setting.overruled:
        yield f"{word} {_shown(setting.key, each.value)} of {each.source.phrase}: {each.why}"


def _value(setting: Setting) -> str:
    if not setting.known:
        return "not known"
    return _shown(setting.key, setting.value) + ("" if setting.certain else " (not certain)")


def _shown(key: str, value: Any) -> str:
    if value is None:
        return _NOTHING.get(key, "-")
    if isinstance(value, bool):
        return str(value).lower()
    if key in _MILLISECONDS and isinstance(value, int) and value > 0:
        return format_duration(value)
    if key == "dead-letter-exchange" and value == "":
        return '"" (default exchange)'
    if key == "delivery-limit" and isinstance(value, int) and value < 0:
        return f"{value} (no limit)"
    return str(json_value(value))


def _source(setting: Setting) -> str:
    return str(setting.source) if setting.known else "policies cannot be seen"


def _source_object(each: Contender) -> dict[str, Any]:
    return {"origin": str(each.source.origin), "name": each.source.name}


def _contender(each: Contender) -> dict[str, Any]:
    return {"value": json_value(each.value), "source": _source_object(each)}
