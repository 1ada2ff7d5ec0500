"""What a person approved: the words of `allow`, or a yes on a terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from .findings import Ref

WORDS = ("replace", "delete")
_RETIRED = "migrate"  #: was offered, and nothing ever asked for it: it allows nothing, and is not refused before 1.0
NAMING = ("delete", "drop")  #: words that may be followed by a colon and one object
KINDS = ("queue", "exchange", "binding", "policy")

_NEXT = re.compile(rf",(?=\s*(?:{'|'.join(dict.fromkeys((*WORDS, _RETIRED, *NAMING)))})\s*(?:[:,]|$))|,(?=\s*(?:,|$))")
"""A comma that ends a value; one inside of a queue's name or a binding's arguments does not."""


@dataclass(frozen=True, slots=True)
class Approval:
    """Consent to a destructive step; printed as `replace`, or `delete:queue orders.old`."""

    word: str  #: replace, delete or drop
    ref: Ref | None = None  #: the one object that it is for; None: every object

    def __str__(self) -> str:
        return self.word if self.ref is None else f"{self.word}:{self.ref}"


Approvals = frozenset[Approval]
NOTHING: Approvals = frozenset()


def allow_flag(approval: Approval) -> str:
    """Return an argument as it is typed in a shell: `allow` delete:orders.old, `allow` 'delete:exchange events'."""
    ref = approval.ref
    if ref is not None and _ref(ref.name) == ref:
        return f"`allow` {shlex.quote(f'{approval.word}:{ref.name}')}"
    return f"`allow` {shlex.quote(str(approval))}"


def parse_approvals(texts: Iterable[str]) -> Approvals:
    """Parse `replace,delete`, `delete:QUEUE`, `delete:exchange NAME`, `delete:SOURCE -> QUEUE (KEY)`, `drop:QUEUE`.

    A name allows this one object to be deleted and no other. After `drop` it names a queue: a change of policy may make
    RabbitMQ drop messages of this queue and of no other. Raises ValueError, which says which values there are.
    """
    approvals: set[Approval] = set()
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
        approvals.add(Approval(word, _ref(one) if colon else None))
    return frozenset(approvals)


def _ref(text: str) -> Ref:
    """Return the object that a text names; without a kind, a binding if the text looks like one, else a queue."""
    kind, space, name = text.partition(" ")
    if space and name and kind in KINDS:
        return Ref(kind, name)
    return Ref("binding" if " -> " in text else "queue", text)
