"""The part of docs/reference/topology.md that is made from the keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import assert_never

from amqpflow.model.units import format_duration
from amqpflow.topology.language.keys import TOPOLOGY
from amqpflow.topology.language.types import (
    MAX_DELAY_MS,
    Boolean,
    Choice,
    Duration,
    Free,
    Integer,
    Key,
    ListOf,
    Number,
    Percent,
    Record,
    ScalarOr,
    Shape,
    Size,
    Table,
    Text,
)

TITLES = {
    "topology": "The file",
    "naming": "naming",
    "defaults": "defaults",
    "defaults.queue": "defaults.queue",
    "tiers": "tiers",
    "parking": "parking",
    "limits": "limits",
    "retry policy": "A retry policy",
    "delay": "An entry of delays",
    "backoff": "backoff",
    "on": "An entry of on",
    "native delay": "delay, with engine: native",
    "exchange": "An exchange",
    "queue": "A queue",
    "binding": "A binding",
}


def keys_reference() -> str:
    """A section with a table for each record, in the order in which the keys lead to them."""
    records: dict[str, Record] = {}
    _collect(TOPOLOGY, records)
    assert records.keys() == TITLES.keys()
    return "\n".join(_section(records[name]) for name in TITLES)


def _collect(shape: Shape, records: dict[str, Record]) -> None:
    match shape:
        case Record():
            if records.setdefault(shape.name, shape) is not shape:
                raise ValueError(f"two records are called {shape.name}")
            for key in shape.keys:
                _collect(key.shape, records)
        case Table() | ListOf():
            _collect(shape.of, records)
        case ScalarOr():
            _collect(shape.record, records)
        case _:
            return


def _section(record: Record) -> str:
    lines = [f"### {TITLES[record.name]}", "", "| key | value | default | |", "|---|---|---|---|"]
    lines += [_row(key) for key in record.keys]
    return "\n".join([*lines, ""])


def _row(key: Key) -> str:
    name = f"`{key.name}`" + (" (required)" if key.required else "")
    default = _code_or_words(key.default)
    help_text = key.help + (f" Example: `{key.name}: {_yaml(key.example)}`." if key.example is not None else "")
    return f"| {name} | {_value(key.shape)} | {default} | {help_text} |".replace("|  |", "| |")


def _code_or_words(default: str) -> str:
    plain = default and " " not in default and not default.endswith(",")
    return f"`{default}`" if plain else default


def _value(shape: Shape) -> str:
    match shape:
        case Text():
            return shape.word
        case Choice():
            return ", ".join(f"`{word}`" for word in shape.words) + (", `x-...`" if shape.more else "")
        case Boolean():
            return "`true`, `false`"
        case Integer():
            return f"whole number, {shape.minimum} to {shape.maximum}" if shape.minimum < shape.maximum else "`1`"
        case Number():
            return f"number, {shape.minimum:g} to {shape.maximum:g}"
        case Duration():
            longest = "" if shape.maximum == MAX_DELAY_MS else f" to {format_duration(shape.maximum)}"
            return f"duration, from {format_duration(shape.minimum)}{longest}"
        case Size():
            return "size"
        case Percent():
            return f"percentage, 0% to {shape.maximum}%"
        case Free():
            return "any value"
        case Record():
            return f"[{TITLES[shape.name]}](#{_anchor(TITLES[shape.name])})"
        case Table():
            return f"mapping of {shape.names} name to {_value(shape.of)}"
        case ListOf():
            return f"list of {_value(shape.of)}"
        case ScalarOr():
            return f"{_value(shape.scalar)}, or {_value(shape.record)}"
    assert_never(shape)


def _anchor(title: str) -> str:
    return "".join(_anchor_characters(title))


def _anchor_characters(title: str) -> Iterator[str]:
    for character in title.lower():
        if character.isalnum() or character in "-_":
            yield character
        elif character == " ":
            yield "-"


def _yaml(value: object) -> str:
    """A value as it would be written on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    text = value if isinstance(value, str) else json.dumps(value)
    return f'"{text}"' if text.startswith(("{", "[")) else text
