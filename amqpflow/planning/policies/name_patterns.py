"""Regular expressions that match given names and, as far as their length allows, no other: for RabbitMQ's permissions.

RabbitMQ 4.3 refuses a pattern of more than 1,024 bytes; before, some tens of thousands are taken (fact 11.24). A user
has one pattern of each kind in a virtual host, so that a list that is too long cannot be cut in two, as that of a
policy can: it is written shorter, and when that does not help it is made wider, and said so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from amqpflow.model.names import escape

MAX_BYTES = 1000
NOTHING = "^$"
_SEGMENT = re.compile(r"[^.\-_:/]*[.\-_:/]|[^.\-_:/]+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """An anchored regular expression."""

    text: str = NOTHING
    exact_bytes: int = 0  #: what the exact pattern would take
    widened: tuple[str, ...] = ()  #: beginnings of names of which more match than were asked for

    @property
    def fits(self) -> bool:
        """Return whether every release takes it."""
        return len(self.text.encode()) <= MAX_BYTES


def pattern_of(names: Mapping[str, Iterable[str]], *, exact: bool = False) -> Pattern:
    """Return a pattern that matches all names: beginnings, and for each the regular expressions that may follow, or "".

    When it is longer than `MAX_BYTES`, names that share a beginning are put together, unless it is to be `exact`.
    """
    text = _anchored(_groups(names))
    size = len(text.encode())
    if exact or size <= MAX_BYTES:
        return Pattern(text=text, exact_bytes=size)
    segments = {name: tuple(_SEGMENT.findall(name)) for name in names}
    for length in range(max(map(len, segments.values())), 0, -1):
        wider, beginnings = _widened(names, segments, length)
        if len(wider.encode()) <= MAX_BYTES:
            return Pattern(text=wider, exact_bytes=size, widened=beginnings)
    return Pattern(text=text, exact_bytes=size)


def _widened(
    names: Mapping[str, Iterable[str]], segments: Mapping[str, tuple[str, ...]], length: int
) -> tuple[str, tuple[str, ...]]:
    """Return the pattern when names that share so many segments, and continue after them, are merged."""
    together: dict[str, list[str]] = {}
    for name, parts in segments.items():
        if len(parts) > length:
            together.setdefault("".join(parts[:length]), []).append(name)
    beginnings = sorted(beginning for beginning, each in together.items() if len(each) > 1)
    swallowed = {name for beginning in beginnings for name in together[beginning]}
    rest = _groups({name: endings for name, endings in names.items() if name not in swallowed})
    return _anchored([*rest, *(f"{escape(each)}.*" for each in beginnings)]), tuple(beginnings)


def _anchored(parts: list[str]) -> str:
    if not parts:
        return NOTHING
    return f"^{parts[0]}$" if len(parts) == 1 and "|" not in _outside(parts[0]) else f"^({'|'.join(parts)})$"


def _groups(names: Mapping[str, Iterable[str]]) -> list[str]:
    """Return a pattern for the names of each set of endings."""
    groups: dict[tuple[str, ...], set[str]] = {}
    for name, endings in names.items():
        groups.setdefault(tuple(sorted(set(endings))), set()).add(name)
    return [_group(bases, endings) for endings, bases in sorted(groups.items())]


def _group(names: Iterable[str], endings: tuple[str, ...]) -> str:
    """Return NAMES(ENDINGS)."""
    head = _alternatives([tuple(_SEGMENT.findall(name)) for name in sorted(names)])
    tails = [ending for ending in endings if ending]
    if not tails:
        return head
    if "|" in _outside(head):
        head = f"({head})"
    tail = "|".join(tails)
    if "" in endings:
        return f"{head}({tail})?"
    return f"{head}({tail})" if len(tails) > 1 else f"{head}{tail}"


def _alternatives(names: list[tuple[str, ...]]) -> str:
    """Return alternatives with what they begin with in common written once; the empty name makes the rest optional."""
    by_first: dict[str, list[tuple[str, ...]]] = {}
    for name in names:
        if name:
            by_first.setdefault(name[0], []).append(name[1:])
    parts = []
    for first, rests in by_first.items():
        rest = _alternatives(rests) if any(rests) else ""
        parts.append(escape(first) + (f"({rest})" if "|" in _outside(rest) else rest))
    text = "|".join(parts)
    return f"({text})?" if () in names and parts else text


def _outside(text: str) -> str:
    """Return what stands outside of all parentheses."""
    kept, depth, escaped = [], 0, False
    for character in text:
        if escaped:
            escaped = False
            continue
        if character == "\\":
            escaped = True
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif not depth:
            kept.append(character)
    return "".join(kept)
