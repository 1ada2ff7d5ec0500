"""What a person agreed to: the words of `allow`, or a yes on a terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

WORDS = ("replace", "delete")
_RETIRED = "migrate"  #: was offered, and nothing ever asked for it: it allows nothing, and is not refused before 1.0
NAMING = ("delete", "drop")  #: words that may be followed by a colon and one object
KINDS = ("queue", "exchange", "binding", "policy")

_NEXT = re.compile(rf",(?=\s*(?:{'|'.join(dict.fromkeys((*WORDS, _RETIRED, *NAMING)))})\s*(?:[:,]|$))|,(?=\s*(?:,|$))")
"""A comma that ends a value; one inside of a queue's name or a binding's arguments does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Nothing is allowed by default."""

    words: frozenset[str] = frozenset()
    named: frozenset[tuple[str, str]] = frozenset()  #: (word, object): ("delete", "queue orders.old")

    @property
    def forced(self) -> frozenset[str]:
        """The queues that may be deleted with messages or consumers."""
        return frozenset(
            label.removeprefix("queue ")
            for word, label in self.named
            if word == "delete" and label.startswith("queue ")
        )

    def names(self, word: str, label: str) -> bool:
        """Whether this one object was named after the word: `names("delete", "queue orders.old")`."""
        return (word, label) in self.named


def allow_flag(word: str, label: str = "") -> str:
    """Return an argument as it is typed in a shell: `allow` delete:orders.old, `allow` 'delete:exchange events'."""
    one = label.removeprefix("queue ") if _label(label.removeprefix("queue ")) == label else label
    return f"`allow` {shlex.quote(f'{word}:{one}' if one else word)}"


def parse_allowance(texts: Iterable[str]) -> Allowance:
    """
    Read `replace,delete`, `delete:QUEUE`, `delete:exchange NAME`, `delete:SOURCE -> QUEUE (KEY)`, `drop:QUEUE`.

    A name allows this one object to be deleted and no other. After `drop` it names a queue: a change of policy may make
    RabbitMQ drop messages of this queue and of no other.

    Raises:
        ValueError: with a sentence that says what may be written.
    """
    words: set[str] = set()
    named: set[tuple[str, str]] = set()
    for part in (part.strip() for text in texts for part in _NEXT.split(text)):
        word, colon, one = part.partition(":")
        word, one = word.strip(), one.strip()
        if part == _RETIRED:
            continue
        if (word not in NAMING or not one) if colon else word not in WORDS:
            raise ValueError(
                f"unknown value {part!r}; use {', '.join(WORDS)}, or one object alone: delete:QUEUE (even with "
                "messages or consumers), 'delete:exchange NAME', 'delete:policy NAME', 'delete:SOURCE -> QUEUE (KEY)', "
                "drop:QUEUE (a tighter limit may drop its messages)"
            )
        if colon:
            named.add((word, _label(one)))
        else:
            words.add(word)
    return Allowance(words=frozenset(words), named=frozenset(named))


def _label(one: str) -> str:
    """The object's label; without a kind it is a binding when it reads like one, else a queue."""
    kind, space, name = one.partition(" ")
    if space and name and kind in KINDS:
        return one
    return f"binding {one}" if " -> " in one else f"queue {one}"
