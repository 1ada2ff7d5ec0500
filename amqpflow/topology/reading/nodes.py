"""What a YAML file is made of, with the place of everything, and YAML 1.2's few types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from amqpflow.model.diagnostic import Place

_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})", re.ASCII)
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]{0,18})(\.[0-9]{0,18})?|\.[0-9]{1,18})([eE][-+]?[0-9]{1,2})?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A single value: its text with variables expanded, and the value this text stands for."""

    place: Place
    text: str
    value: str | int | float | bool | None
    expanded: bool = False  #: a variable was in it


@dataclass(frozen=True, slots=True, kw_only=True)
class ListNode:
    """A list."""

    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key of a mapping and its value."""

    key: str
    place: Place  #: of the key
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingNode:
    """A mapping, in the file's order, every key once."""

    place: Place
    entries: tuple[Entry, ...]


Node = Scalar | ListNode | MappingNode


def plain_value(text: str) -> str | int | float | bool | None:
    """Return what an unquoted scalar stands for: true, false, null, a decimal number, else its text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


UNUSABLE = Scalar(place=Place(file=""), text="", value=None)
"""Stands where a value was that has been reported already; compare with `is`."""
