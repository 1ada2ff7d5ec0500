"""`${VAR}` inside scalars: expanded after YAML was parsed, so that no value can change the structure of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_EXPANDED = 64 * 1024
"""Characters of one scalar, after expansion."""

_TOKEN = re.compile(r"\$\$\{|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_FORMS = "write ${NAME}, ${NAME:-default} or ${NAME:?message}; $${ is a literal ${"


class VariableError(ValueError):
    """A variable cannot be expanded; `offset` says where in the text it stands."""

    def __init__(self, message: str, *, offset: int, hint: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.hint = hint


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Expand `${VAR}`, `${VAR:-default}` (unset or empty) and `${VAR:?message}` from `environ`; `$${` becomes `${`.

    Values and defaults are taken as they are: variables in them are not expanded again.

    Raises:
        VariableError: undefined, or not written as above.
    """
    parts: list[str] = []
    length = position = 0
    while (token := _TOKEN.search(text, position)) is not None:
        parts.append(text[position : token.start()])
        if token[0] == "$${":
            parts.append("${")
            position = token.end()
        else:
            value, position = _variable(text, token.start(), environ)
            parts.append(value)
        length += len(parts[-1])
        if length > MAX_EXPANDED:
            raise VariableError(f"expands to more than {MAX_EXPANDED:,} characters", offset=token.start())
    parts.append(text[position:])
    return "".join(parts)


def _variable(text: str, start: int, environ: Mapping[str, str]) -> tuple[str, int]:
    """Return the value of the variable at `start`, and where the rest of the text begins."""
    end = text.find("}", start)
    if end < 0:
        raise VariableError("${ without its }", offset=start, hint=_FORMS)
    inside = text[start + 2 : end]
    match = _NAME.match(inside)
    name, rest = (match[0], inside[match.end() :]) if match else ("", inside)
    if "${" in rest:
        raise VariableError("variables cannot be nested", offset=start, hint=_FORMS)
    if not name or (rest and rest[:2] not in (":-", ":?")):
        raise VariableError(f"${{{inside[:64]}}} is not a variable", offset=start, hint=_FORMS)
    value = environ.get(name)
    if rest[:2] == ":-":
        return value or rest[2:], end + 1
    if rest[:2] == ":?":
        if not value:
            raise VariableError(f"{name} is not set: {rest[2:] or 'it must be'}", offset=start)
        return value, end + 1
    if value is None:
        hint = f"set it, or give a default: ${{{name}:-...}}"
        raise VariableError(f"the environment variable {name} is not set", offset=start, hint=hint)
    return value, end + 1
