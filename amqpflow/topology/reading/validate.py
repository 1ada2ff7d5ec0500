"""Nodes -> values of the right kind, by the shapes of keys.py. What does not fit is reported and left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

from amqpflow.model.diagnostic import Place
from amqpflow.model.names import MAX_NAME_BYTES
from amqpflow.topology.language.codes import Code
from amqpflow.topology.language.types import Free, ListOf, Record, ScalarOr, Shape, Table

from .nodes import UNUSABLE, Entry, ListNode, MappingNode, Node, Scalar
from .problems import Problems
from .single import UnfitError, describe, read_single


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
    readable: bool = True  #: False: stands for a value that is not a mapping

    def get(self, name: str) -> Any:
        return self.values.get(name)


def read(node: Node, shape: Shape, name: str, place: Place, problems: Problems) -> Any:
    """Return the value of a node, None when it does not fit (then said).

    A record is `Fields`, a table a dict of key to `At` or `Fields`, a list a tuple of them, the rest as `read_single`
    returns it. `name` and `place` are those of its key, for messages.
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
                return read_single(node, shape, name)
            except UnfitError as unfit:
                hint = unfit.hint
                if unfit.known and isinstance(node, Scalar):
                    hint = problems.nearest(node.text, unfit.known)
                problems.error(unfit.code, node.place, str(unfit), hint)
                return None


def _is_nothing(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _record(node: Node, shape: Record, name: str, place: Place, problems: Problems) -> Fields | None:
    if not isinstance(node, MappingNode):
        if not _is_nothing(node):
            hint = f"its keys are {', '.join(key.name for key in shape.keys)}"
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
        if isinstance(shape.of, Free):
            _argument_name(entry, shape.names, problems)
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


def _argument_name(entry: Entry, name: str, problems: Problems) -> None:
    """Check that keys of AMQP's tables have at most 255 bytes."""
    size = len(entry.key.encode(errors="surrogatepass"))
    if size > MAX_NAME_BYTES:
        message = f"{name} {entry.key[:40]!r}...: the name has {size:,} bytes, AMQP takes {MAX_NAME_BYTES}"
        problems.error(Code.NAME_TOO_LONG, entry.place, message, "shorten it")


def _free(node: Node, name: str, problems: Problems) -> Any:
    match node:
        case MappingNode():
            for entry in node.entries:
                _argument_name(entry, name, problems)
            values = {entry.key: _free(entry.node, entry.key[:255], problems) for entry in node.entries}
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
