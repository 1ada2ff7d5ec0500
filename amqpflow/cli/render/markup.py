"""Indent XML. Nothing is expanded or fetched: a text with a type declaration stays unchanged."""

from __future__ import annotations

from xml.parsers import expat  # is asked whether the text is well-formed, and where its parts begin; it builds nothing

_INDENT = "  "
_DEEPEST = 64  #: elements within one another; indenting more would multiply the text


class _DeclarationError(Exception):
    """The text has a document type declaration, which can define entities that grow without measure."""


def pretty_xml(text: str) -> list[str] | None:
    """Return XML with an element a line; None if it is not XML, has a type declaration, or is nested too deeply.

    Tags, text, comments and sections are shown as they were written; only white space at their ends is not.
    """
    if not text.lstrip().startswith("<"):
        return None
    parts: list[str] = []
    parser = expat.ParserCreate("utf-8")
    parser.StartDoctypeDeclHandler = _refuse
    parser.DefaultHandler = parts.append  # without other handlers it is given everything, as it was written
    try:
        parser.Parse(text.strip().encode("utf-8", "surrogatepass"), True)
    except (expat.ExpatError, _DeclarationError, ValueError):
        return None
    return _indented([part for part in _joined(parts) if part])


def _refuse(*_: object) -> None:
    raise _DeclarationError


def _joined(parts: list[str]) -> list[str]:
    """Join the parts of a text, CDATA sections included, and strip it."""
    joined: list[str] = []
    text = ""
    section = False
    for part in parts:
        if section or not part.startswith("<") or part == "<![CDATA[":
            section = (section or part == "<![CDATA[") and part != "]]>"
            text += part
            continue
        joined += (text.strip(), part)
        text = ""
    return joined


def _indented(parts: list[str]) -> list[str] | None:
    lines: list[str] = []
    depth = at = 0
    while at < len(parts):
        part = parts[at]
        if part.startswith("</"):
            depth -= 1
        leaf = _leaf(parts, at)
        lines += ((_INDENT * depth + each) for each in "".join(parts[at : at + leaf]).split("\n"))
        depth += leaf == 1 and _opens(part)
        if depth > _DEEPEST:
            return None
        at += leaf
    return lines


def _leaf(parts: list[str], at: int) -> int:
    """Count the parts that go into one line: an element without child elements is one line."""
    if _opens(parts[at]):
        for size in (2, 3):
            if at + size <= len(parts) and parts[at + size - 1].startswith("</"):
                return size if size == 2 or not _is_markup(parts[at + 1]) else 1
    return 1


def _opens(part: str) -> bool:
    return _is_markup(part) and not part.startswith(("</", "<?", "<!")) and not part.endswith("/>")


def _is_markup(part: str) -> bool:
    return part.startswith("<") and not part.startswith("<![CDATA[")
