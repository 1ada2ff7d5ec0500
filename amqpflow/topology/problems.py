"""Where problems are collected while a file is read and checked, so that all of them are reported in one go."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from amqpflow.model.diagnostic import Diagnostic, Place, Severity

from .codes import Code

MOST = 200
"""A hostile file has a problem on every line; nobody reads more than this many."""

_CANDIDATES = 500


class Problems:
    """Diagnostics in the making. Once it holds `MOST`, the rest is counted and no longer kept."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.uncounted = 0
        self._found: dict[tuple[str, Place, str], Diagnostic] = {}

    def error(self, code: Code, place: Place, message: str, hint: str = "") -> None:
        self._add(code, Severity.ERROR, place, message, hint)

    def warning(self, code: Code, place: Place, message: str, hint: str = "") -> None:
        self._add(code, Severity.WARNING, place, message, hint)

    def _add(self, code: Code, severity: Severity, place: Place, message: str, hint: str) -> None:
        if len(self._found) >= MOST:
            self.uncounted += 1
            return
        problem = Diagnostic(code=code.value, severity=severity, place=place, message=message, hint=hint)
        self._found.setdefault((problem.code, place, message), problem)

    @property
    def fatal(self) -> bool:
        """Whether anything found so far is an error."""
        return any(problem.severity is Severity.ERROR for problem in self._found.values())

    def sorted(self) -> tuple[Diagnostic, ...]:
        """All of them in the order of their places in the file."""
        found = sorted(self._found.values(), key=lambda problem: (problem.place, problem.code, problem.message))
        if self.uncounted:
            last = Diagnostic(
                code=Code.TOO_MANY_PROBLEMS.value,
                severity=Severity.ERROR,
                place=found[-1].place,
                message=f"{self.uncounted} more problems are not shown",
            )
            found.append(last)
        return tuple(found)


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A hint with the nearest known word, else with the known words when they are few, else nothing."""
    words = sorted(set(known))
    if not words:
        return ""
    if len(words) > _CANDIDATES:
        # comparing costs time per word, and a word that differs in length by much is not meant
        words = [word for word in words if abs(len(word) - len(wrong)) <= 2][:_CANDIDATES]
    close = get_close_matches(wrong[:255], words, n=1)
    if not close:
        folded = {word.casefold().replace("-", "_"): word for word in words}
        meant = folded.get(wrong.casefold().replace("-", "_"))
        close = [meant] if meant else []
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(words)}" if len(words) <= 20 else ""
