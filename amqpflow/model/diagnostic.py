"""A problem found in a file: a stable code, a place, a sentence, a hint. All problems are reported together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a problem matters: an error stops the command, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """A place in a file; line and column count from 1, as in editors."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One problem; printed as `file:line:column: code: message (hint)`."""

    code: str  #: stable, documented in docs/reference/diagnostics.md
    severity: Severity
    place: Place
    message: str  #: what is wrong
    hint: str = ""  #: what to do about it

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        warning = "warning: " if self.severity is Severity.WARNING else ""
        return f"{self.place}: {self.code}: {warning}{self.message}{hint}"
