"""Tables of text: columns as wide as their content. Cells have gone through safe()."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

_WIDEST = 40  #: of a column but the stretched one
_WIDEST_STRETCHED = 100  #: off a terminal


def table(rows: Callable[[], Iterable[Sequence[str]]], *, stretched: int | None = None) -> Iterator[str]:
    """Yield rows, of which the first has the headings. `rows` is called twice.

    On a terminal the `stretched` column takes the rest of the line, and longer cells are cut. Elsewhere, and without
    such a column, no cell is cut: a longer one moves the rest of its line, so that a program reads whole names.
    """
    widths: list[int] = []
    for row in rows():
        widths = widths or [0] * len(row)
        widths = [max(wide, _width(cell)) for wide, cell in zip(widths, row, strict=True)]
    widths = [min(wide, _WIDEST_STRETCHED if at == stretched else _WIDEST) for at, wide in enumerate(widths)]
    terminal = terminal_width() if stretched is not None else None
    if terminal is not None and stretched is not None:
        left = terminal - sum(widths) + widths[stretched] - 2 * (len(widths) - 1)
        widths[stretched] = min(widths[stretched], max(20, left))
    for row in rows():
        cells = row if terminal is None else [_cut(cell, wide) for cell, wide in zip(row, widths, strict=True)]
        yield "  ".join(cell + " " * (wide - _width(cell)) for cell, wide in zip(cells, widths, strict=True)).rstrip()


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output is; None when it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    text = text[:width]
    while _width(text) > width - 1:
        text = text[:-1]
    return text + "…"
