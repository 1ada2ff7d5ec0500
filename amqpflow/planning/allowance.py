"""What somebody agreed to: the words of --allow, or a yes on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

WORDS = ("replace", "migrate", "delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Nothing is allowed by default."""

    words: frozenset[str] = frozenset()
    forced: frozenset[str] = frozenset()  #: queues that may be deleted with messages or consumers

    def lacks(self, required: Iterable[str]) -> tuple[str, ...]:
        """The words that are still needed."""
        return tuple(word for word in required if word not in self.words)


def parse_allowance(texts: Iterable[str]) -> Allowance:
    """
    Read `replace,delete` or `delete:QUEUE`; naming a queue allows deletion as such, too.

    Raises:
        ValueError: with a sentence that says what may be written.
    """
    words: set[str] = set()
    forced: set[str] = set()
    for part in (part.strip() for text in texts for part in text.split(",")):
        word, colon, queue = part.partition(":")
        if word not in WORDS or (colon and (word != "delete" or not queue)):
            raise ValueError(
                f"{part!r} is nothing that can be allowed: write {', '.join(WORDS)}, or delete:QUEUE for a queue "
                "that is to be deleted with its messages or consumers"
            )
        words.add(word)
        if queue:
            forced.add(queue)
    return Allowance(words=frozenset(words), forced=frozenset(forced))
