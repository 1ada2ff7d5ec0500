"""The kinds of values a topology file is made of. What each key takes is written down once, in keys.py, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_DELAY_MS = 315_360_000_000
"""Ten years, the longest message TTL that RabbitMQ takes (fact 5.5)."""


@dataclass(frozen=True, slots=True)
class Text:
    """Any text that is not empty, or with `empty` any text."""

    empty: bool = False
    word: str = "text"  #: how messages and the reference call it


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]
    more: str = ""  #: a regular expression for further words
    instead: Mapping[str, str] | None = None  #: for words that people may try: what to say


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false."""


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Number:
    """A number, with a fraction or without."""

    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Duration:
    """A duration such as 1m30s, read as milliseconds."""

    minimum: int = 1
    maximum: int = MAX_DELAY_MS


@dataclass(frozen=True, slots=True)
class Size:
    """A size such as 64KiB, read as bytes."""


@dataclass(frozen=True, slots=True)
class Percent:
    """A percentage such as 10%, read as a fraction."""

    maximum: int


@dataclass(frozen=True, slots=True)
class Free:
    """What AMQP allows as an argument: text, numbers, booleans, lists and tables of these."""


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping with known keys."""

    name: str  #: of its section in the reference
    keys: tuple[Key, ...]

    def key(self, name: str) -> Key | None:
        return next((key for key in self.keys if key.name == name), None)


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping whose keys the user chooses."""

    of: Shape
    names: str  #: what the keys are


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list."""

    of: Shape
    at_least: int = 0


@dataclass(frozen=True, slots=True)
class ScalarOr:
    """Either a single value, or a record that says more."""

    scalar: Shape
    record: Record


Single = Text | Choice | Boolean | Integer | Number | Duration | Size | Percent
Shape = Single | Free | Record | Table | ListOf | ScalarOr


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a record: everything that is said of it anywhere."""

    name: str
    shape: Shape
    help: str  #: one or two sentences, for editors and the reference
    required: bool = False
    default: str = ""  #: as written in a file, or in words
    example: Any = None  #: as a value of the file
