"""Where problems are collected while a file is read and checked, so that all of them are reported in one go."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from amqpflow.model.diagnostic import Diagnostic, Place, Severity
from amqpflow.topology.language.codes import Code

MOST = 200
"""Errors, and warnings: a hostile file has a problem on every line, and people read no more than this many."""

COMPARED_CHARACTERS = 3_000_000
"""What a whole file may spend on finding the words that were meant: the product of two words' lengths, at 0.25 us."""


class Problems:
    """Diagnostics in the making. Beyond `MOST` of a severity they are counted and no longer kept."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._compared = 0
        self._found: dict[Severity, dict[tuple[str, Place, str], Diagnostic]] = {each: {} for each in Severity}
        self._dropped = dict.fromkeys(Severity, 0)

    def error(self, code: Code, place: Place, message: str, hint: str = "") -> None:
        self._add(code, Severity.ERROR, place, message, hint)

    def warning(self, code: Code, place: Place, message: str, hint: str = "") -> None:
        self._add(code, Severity.WARNING, place, message, hint)

    def _add(self, code: Code, severity: Severity, place: Place, message: str, hint: str) -> None:
        found = self._found[severity]
        if len(found) >= MOST:
            self._dropped[severity] += 1
            return
        problem = Diagnostic(code=code.value, severity=severity, place=place, message=message, hint=hint)
        found.setdefault((problem.code, place, message), problem)

    def nearest(self, wrong: str, known: Collection[str]) -> str:
        """Return a hint with the known word that is nearest, else with the known words when they are few, else nothing.

        Nothing also once a file has used up its share: its keys are then not typos.
        """
        wrong, left = wrong[:255], COMPARED_CHARACTERS - self._compared
        if len(known) > left:
            return ""
        words = sorted(set(known))
        self._compared += max(len(wrong) * sum(map(len, words)), len(words))
        if self._compared > COMPARED_CHARACTERS:
            return ""
        close = get_close_matches(wrong, words, n=1)
        if not close:
            folded = {_folded(word): word for word in words}
            close = [folded[_folded(wrong)]] if _folded(wrong) in folded else []
        if close:
            return f"did you mean {close[0]}?"
        return f"known: {', '.join(words)}" if 0 < len(words) <= 20 else ""

    @property
    def fatal(self) -> bool:
        """Return whether anything found so far is an error."""
        return bool(self._found[Severity.ERROR])

    def sorted(self) -> tuple[Diagnostic, ...]:
        """Return all of them in the order of their places in the file."""
        found = [problem for of_severity in self._found.values() for problem in of_severity.values()]
        found.sort(key=lambda problem: (problem.place, problem.code, problem.message))
        for severity, dropped in self._dropped.items():
            if dropped:
                message = f"{dropped:,} more {severity.value}s are not shown"
                code, place = Code.TOO_MANY_PROBLEMS.value, found[-1].place
                found.append(Diagnostic(code=code, severity=severity, place=place, message=message))
        return tuple(found)


def _folded(word: str) -> str:
    return word.casefold().replace("-", "_")
