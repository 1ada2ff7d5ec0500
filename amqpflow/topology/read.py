"""Nodes -> values of the right kind, by the shapes of keys.py. What does not fit is reported and left out."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, assert_never

from amqpflow.model.diagnostic import Place
from amqpflow.model.duration import format_duration, parse_duration, parse_size

from .codes import Code
from .document import UNUSABLE, ListNode, MappingNode, Node, Scalar
from .problems import Problems
from .shapes import (
    Boolean,
    Choice,
    Duration,
    Free,
    Integer,
    ListOf,
    Number,
    Percent,
    Record,
    ScalarOr,
    Shape,
    Single,
    Size,
    Table,
    Text,
)

_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """A value, and where it stands."""

    place: Place
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """A record as read: `values` holds what fits, `places` every key that is there at all."""

    place: Place
    values: dict[str, Any]
    places: dict[str, Place]
    readable: bool = True  #: False: stands for what is no mapping at all

    def get(self, name: str) -> Any:
        return self.values.get(name)


class _Unfit(Exception):
    def __init__(self, code: Code, message: str, hint: str = "", *, known: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code, self.hint, self.known = code, hint, known


def read(node: Node, shape: Shape, name: str, place: Place, problems: Problems) -> Any:
    """
    The value of a node, None when it does not fit (then said).

    Args:
        node: what the file holds.
        shape: what it should be.
        name: of its key, for messages.
        place: of its key; a collection's problems are shown there.
        problems: takes what does not fit.

    Returns:
        A `Fields` for a record; a dict of key to `At` or `Fields` for a table; a tuple of them for a list; else a
        plain value: milliseconds for a duration, bytes for a size, a Fraction for a percentage.
    """
    if node is UNUSABLE:
        return None
    match shape:
        case Record():
            return _record(node, shape, name, place, problems)
        case Table():
            return _table(node, shape, name, place, problems)
        case ListOf():
            return _list(node, shape, name, place, problems)
        case ScalarOr():
            chosen = shape.scalar if isinstance(node, Scalar) else shape.record
            return read(node, chosen, name, place, problems)
        case Free():
            return _free(node, name, problems)
        case _:
            try:
                return _scalar(node, shape, name)
            except _Unfit as unfit:
                hint = unfit.hint
                if unfit.known and isinstance(node, Scalar):
                    hint = problems.nearest(node.text, unfit.known)
                problems.error(unfit.code, node.place, str(unfit), hint)
                return None


def describe(node: Node) -> str:
    """What a node is, in a few words, for messages."""
    match node:
        case MappingNode():
            return "a mapping"
        case ListNode():
            return "a list"
        case Scalar(value=None):
            return "nothing"
        case Scalar(value=bool()):
            return node.text
        case Scalar(value=int() | float()):
            return f"the number {node.text}"
        case Scalar():
            return f"the text {node.text[:60]!r}"
    assert_never(node)


def _is_nothing(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _record(node: Node, shape: Record, name: str, place: Place, problems: Problems) -> Fields | None:
    if not isinstance(node, MappingNode):
        if not _is_nothing(node):
            known = ", ".join(key.name for key in shape.keys)
            hint = f"its keys are {known}"
            problems.error(Code.WRONG_TYPE, node.place, f"{name} is a mapping, found {describe(node)}", hint)
            return None
        node = MappingNode(place=place, entries=())
    fields = Fields(place=place, values={}, places={})
    for entry in node.entries:
        key = shape.key(entry.key)
        if key is None:
            hint = problems.nearest(entry.key, [key.name for key in shape.keys])
            message = f"unknown key {entry.key[:255]!r} in {name}"
            problems.error(Code.UNKNOWN_KEY, entry.place, message, hint)
            continue
        fields.places[key.name] = entry.node.place if isinstance(entry.node, Scalar) else entry.place
        if entry.node is UNUSABLE:
            fields.places[key.name] = entry.place
            continue
        value = read(entry.node, key.shape, key.name, entry.place, problems)
        if value is not None:
            fields.values[key.name] = value
    for key in shape.keys:
        if key.required and key.name not in fields.places:
            hint = f"for example {key.name}: {key.example}"
            problems.error(Code.MISSING_KEY, place, f"{name} has no {key.name}", hint)
    return fields


def _table(node: Node, shape: Table, name: str, place: Place, problems: Problems) -> dict[str, Any] | None:
    if not isinstance(node, MappingNode):
        if not _is_nothing(node):
            message = f"{name} is a mapping of {shape.names} names, found {describe(node)}"
            problems.error(Code.WRONG_TYPE, node.place, message)
            return None
        node = MappingNode(place=place, entries=())
    found: dict[str, Any] = {}
    for entry in node.entries:
        value = read(entry.node, shape.of, f"{shape.names} {entry.key[:255]}", entry.place, problems)
        if isinstance(shape.of, Record):
            # a broken one is still known by its name, so that references to it are not reported as well
            found[entry.key] = value or Fields(place=entry.place, values={}, places={}, readable=False)
        elif value is not None:
            found[entry.key] = At(place=entry.place, value=value)
    return found


def _list(node: Node, shape: ListOf, name: str, place: Place, problems: Problems) -> tuple[Any, ...] | None:
    if not isinstance(node, ListNode):
        hint = f"write [{node.text[:60]}]" if isinstance(node, Scalar) and node.text else ""
        problems.error(Code.WRONG_TYPE, node.place, f"{name} is a list, found {describe(node)}", hint)
        return None
    if len(node.items) < shape.at_least:
        problems.error(Code.OUT_OF_RANGE, place, f"{name} is empty")
        return None
    found = []
    for item in node.items:
        value = read(item, shape.of, name if not isinstance(shape.of, Record) else shape.of.name, item.place, problems)
        if value is not None:
            found.append(value if isinstance(value, Fields) else At(place=item.place, value=value))
    return tuple(found)


def _scalar(node: Node, shape: Single, name: str) -> str | int | float | bool | Fraction:
    if not isinstance(node, Scalar):
        raise _Unfit(Code.WRONG_TYPE, f"{name} is {_word(shape)}, found {describe(node)}")
    match shape:
        case Text():
            return _text(node, shape, name)
        case Choice():
            return _choice(node, shape, name)
        case Boolean():
            if not isinstance(node.value, bool):
                old = node.text.casefold() in ("yes", "no", "on", "off", "y", "n")
                hint = "yes, no, on and off are text in YAML 1.2" if old else ""
                raise _Unfit(Code.WRONG_TYPE, f"{name} is true or false, found {describe(node)}", hint)
            return node.value
        case Integer():
            return _integer(node, shape, name)
        case Number():
            return _number(node, shape, name)
        case Duration():
            return _duration(node, shape, name)
        case Size():
            return _size(node, name)
        case Percent():
            return _percent(node, shape, name)
    assert_never(shape)


def _word(shape: Single) -> str:
    match shape:
        case Text():
            return f"a {shape.word}" if shape.word != "text" else "text"
        case Choice():
            return f"one of {', '.join(shape.words)}"
        case Boolean():
            return "true or false"
        case Integer():
            return "a whole number"
        case Number():
            return "a number"
        case Duration():
            return "a duration such as 30s"
        case Size():
            return "a size such as 64KiB"
        case Percent():
            return "a percentage such as 10%"
    assert_never(shape)


def _text(node: Scalar, shape: Text, name: str) -> str:
    # a variable may hold digits: what it expands to is text where text is wanted
    if isinstance(node.value, str) or (node.expanded and node.text):
        if node.text or shape.empty:
            return node.text
        raise _Unfit(Code.WRONG_TYPE, f"{name} is empty")
    hint = f'quote it: "{node.text[:60]}"' if node.text else 'write "" for empty text' if shape.empty else ""
    raise _Unfit(Code.WRONG_TYPE, f"{name} is {_word(shape)}, found {describe(node)}", hint)


def _choice(node: Scalar, shape: Choice, name: str) -> str:
    if node.text in shape.words or (shape.more and re.fullmatch(shape.more, node.text, re.ASCII)):
        return node.text
    hint = (shape.instead or {}).get(node.text) or ""
    message = f"{name} is one of {', '.join(shape.words)}, found {describe(node)}"
    raise _Unfit(Code.NOT_A_CHOICE, message, hint, known=() if hint else shape.words)


def _integer(node: Scalar, shape: Integer, name: str) -> int:
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int):
        hint = "remove the quotes" if isinstance(value, str) and value.isascii() and value.isdigit() else ""
        raise _Unfit(Code.WRONG_TYPE, f"{name} is a whole number, found {describe(node)}", hint)
    if name == "version" and value != shape.minimum:
        hint = f"write version: {shape.minimum}, or install the amqpflow that this file was written for"
        raise _Unfit(Code.UNKNOWN_VERSION, f"version {value} of the topology language is not known here", hint)
    if not shape.minimum <= value <= shape.maximum:
        raise _Unfit(Code.OUT_OF_RANGE, f"{name} is from {shape.minimum} to {shape.maximum}, found {node.text}")
    return value


def _number(node: Scalar, shape: Number, name: str) -> float:
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unfit(Code.WRONG_TYPE, f"{name} is a number, found {describe(node)}")
    if not (math.isfinite(value) and shape.minimum <= value <= shape.maximum):
        raise _Unfit(Code.OUT_OF_RANGE, f"{name} is from {shape.minimum} to {shape.maximum}, found {node.text}")
    return value


def _duration(node: Scalar, shape: Duration, name: str) -> int:
    try:
        milliseconds = parse_duration(node.text)
    except ValueError as error:
        raise _Unfit(Code.NOT_A_DURATION, f"{name}: {error}") from None
    if milliseconds < shape.minimum:
        raise _Unfit(Code.OUT_OF_RANGE, f"{name} is at least {format_duration(shape.minimum)}, found {node.text}")
    if milliseconds > shape.maximum:
        most = f"{format_duration(shape.maximum)} ({shape.maximum} ms)"
        raise _Unfit(Code.OUT_OF_RANGE, f"{name} is at most {most}, RabbitMQ's longest; found {node.text}")
    return milliseconds


def _size(node: Scalar, name: str) -> int:
    try:
        size = parse_size(node.text)
    except ValueError as error:
        raise _Unfit(Code.NOT_A_SIZE, f"{name}: {error}") from None
    if not 0 < size < 2**53:
        raise _Unfit(Code.OUT_OF_RANGE, f"{name} is at least 1B and less than 8388608GiB, found {node.text}")
    return size


def _percent(node: Scalar, shape: Percent, name: str) -> Fraction:
    match = _PERCENT.fullmatch(node.text)
    if match is None:
        hint = f"write {node.text}%" if isinstance(node.value, int) else "for example 10%"
        raise _Unfit(Code.WRONG_TYPE, f"{name} is a percentage, found {describe(node)}", hint)
    percent = Fraction(match[1])
    if percent > shape.maximum:
        raise _Unfit(Code.OUT_OF_RANGE, f"{name} is from 0% to {shape.maximum}%, found {node.text}")
    return percent / 100


def _free(node: Node, name: str, problems: Problems) -> Any:
    match node:
        case MappingNode():
            values = {entry.key: _free(entry.node, entry.key, problems) for entry in node.entries}
            return {key: value for key, value in values.items() if value is not None}
        case ListNode():
            return [value for item in node.items if (value := _free(item, name, problems)) is not None]
        case Scalar(value=None):
            if node is not UNUSABLE:
                problems.error(Code.WRONG_TYPE, node.place, f"{name} has no value", 'write "" for empty text')
            return None
        case Scalar(value=int() as number) if not -(2**63) <= number < 2**63:
            problems.error(Code.OUT_OF_RANGE, node.place, f"{name}: {number} does not fit into 64 bits")
            return None
        case Scalar():
            return node.value
    assert_never(node)
