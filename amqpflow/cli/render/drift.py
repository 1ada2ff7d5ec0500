"""Show drift, as text and as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from amqpflow.cli.safe import safe, said, with_options
from amqpflow.planning.reports.drift import Drift, DriftReport
from amqpflow.planning.values.findings import Ref

from .colors import paint
from .definition import value_words
from .plan_rows import listed
from .plan_schema import record
from .values import json_value, picked

VERSION = 1
ONE_BY_ONE = 12  #: so many alike have a line each

_SYMBOLS = {"missing": ("-", "red"), "changed": ("~", "yellow"), "added": ("+", "yellow"), "foreign": ("!", "red")}
_TITLES = {
    "missing": "Missing on the broker",
    "changed": "Changed on the broker",
    "added": "On the broker, not in the file",
    "foreign": "Foreign, in conflict with the file",
}


def drift_text(report: DriftReport, *, color: bool, width: int = 120) -> str:
    """Return the drift as text, grouped by kind; `width` is that of the terminal, in columns."""
    return "\n".join(_lines(report, color, max(width, 40)))


def drift_summary(report: DriftReport) -> str:
    """Return one line: Drift: 1 missing, 2 changed; 31 as the file says."""
    counts: Counter[str] = Counter(each.what for each in report.drifts)
    told = ", ".join(f"{counts[what]} {what}" for what in _SYMBOLS if counts[what])
    if told:
        return f"Drift: {told}; {report.same} as the file says."
    seen = " of what can be seen" if report.unseen else ""
    return f"No drift{seen}: {report.same} objects are as the file says."


def drift_object(report: DriftReport) -> dict[str, Any]:
    """Return the report for JSON, by `drift_schema`. Within one `version`, keys are only added."""
    plan = report.plan
    return {
        "version": VERSION,
        "topology": plan.topology.name,
        "file": plan.topology.file,
        **picked(plan, "broker", "vhost", "complete", "source"),
        "drifted": bool(report.drifts),
        "drifts": [_object(each) for each in report.drifts],
        "unseen": list(report.unseen),
        "same": report.same,
    }


def drift_schema() -> dict[str, Any]:
    """Return the JSON Schema of `drift -o json`, draft 2020-12."""
    text = {"type": "string"}
    attribute = {"type": "object", "required": ["name", "file", "broker"], "properties": {"name": text}}
    drifted = {
        "what": {"enum": list(_SYMBOLS)},
        "object": {"type": "string", "description": "queue orders.confirm"},
        "attributes": {"type": "array", "items": attribute, "description": "null: not set there"},
        "message": text,
        "hint": text,
    }
    whole = {
        "version": {"const": VERSION, "description": "Within one version, keys are only added."},
        **dict.fromkeys(("topology", "file", "broker", "vhost"), text),
        "complete": {"type": "boolean", "description": "False: seen over AMQP alone."},
        "source": text,
        "drifted": {"type": "boolean"},
        "drifts": {"type": "array", "items": record(drifted)},
        "unseen": {"type": "array", "items": text, "description": "What could not be compared."},
        "same": {"type": "integer", "minimum": 0, "description": "Objects that are as the file says."},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "amqpflow drift", **record(whole)}


def _object(each: Drift) -> dict[str, Any]:
    return {
        "what": each.what,
        "object": each.object,
        "attributes": [
            {"name": one.key, "file": json_value(one.desired), "broker": json_value(one.observed)}
            for one in each.attributes
        ],
        "message": with_options(each.message),
        "hint": with_options(each.hint),
    }


def _lines(report: DriftReport, color: bool, width: int) -> Iterator[str]:
    plan = report.plan
    yield safe(f"Topology {plan.topology.name} on {plan.broker}, virtual host {plan.vhost}")
    yield ""
    for what, title in _TITLES.items():
        drifts = [each for each in report.drifts if each.what == what]
        if drifts:
            yield f"  {title}"
            for each in _together(drifts):
                yield from _drift(each, color, width)
            yield ""
    for text in report.unseen:
        yield from _wrapped(f"Not seen: {safe(text)} ({safe(plan.source)})", width, 2)
    if report.unseen:
        yield ""
    yield drift_summary(report)


def _together(drifts: list[Drift]) -> Iterator[Drift]:
    """Merge many equal drifts of one kind into a line, such as all queues of an emptied virtual host."""
    alike: dict[tuple[str, str], list[Drift]] = {}
    for each in drifts:
        alike.setdefault((each.ref.kind, each.message), []).append(each)
    for (kind, _), same in alike.items():
        if len(same) <= ONE_BY_ONE:
            yield from same
        else:
            yield replace(same[0], ref=Ref(kind, listed([each.ref.name for each in same])))


def _drift(each: Drift, color: bool, width: int) -> Iterator[str]:
    symbol, tint = _SYMBOLS[each.what]
    first, *rest = _wrapped(f"    {symbol} {safe(each.object)}", width, 8)
    yield first.replace(symbol, paint(symbol, tint, color), 1)
    yield from rest
    for one in each.attributes:
        theirs, ours = value_words(one.key, one.observed), value_words(one.key, one.desired)
        yield from _wrapped(
            f"        {safe(one.key)}: {safe(theirs)} on the broker, {safe(ours)} in the file", width, 10
        )
    if not each.attributes and each.what != "missing":
        yield from _wrapped(f"        {said(each.message)}", width, 10)
    if each.hint:
        yield from _wrapped(f"        {said(each.hint)}", width, 10)


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ) or [text]
