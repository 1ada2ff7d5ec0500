"""Measure text without a font: never narrower than a browser draws it."""

from __future__ import annotations

import unicodedata

_NARROW = frozenset("iljtf.,:;|!' ()[]")
_WIDE = frozenset("mwMW@%—…")


def width_of(text: str, size: float) -> float:
    """Return the width in pixels of a sans-serif text, in the widest of Helvetica, Segoe UI, Roboto, DejaVu."""
    return sum(map(_em, text)) * size


def _em(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    if character in _NARROW:
        return 0.40
    if character in _WIDE:
        return 1.0
    return 0.72 if character.isupper() else 0.64


def shortened(text: str, most: int) -> str:
    """Leave out the middle of a text that has more than `most` characters: names differ at both ends."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"
