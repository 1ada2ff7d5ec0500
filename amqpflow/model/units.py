"""Quantities as people write them: `1m30s` <-> milliseconds, `64KiB` <-> bytes, `100/s`, `10%`.

A bare number is an error on purpose: RabbitMQ counts milliseconds, people think in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile(r"(?:\d+(?:ms|[dhms]))+", re.ASCII)
_PART = re.compile(r"(\d+)(ms|[dhms])", re.ASCII)
_BARE = re.compile(r"\d{1,20}", re.ASCII)
_RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])", re.ASCII)
_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%", re.ASCII)
_SIZES: dict[str, int] = {"B": 1} | {f"{unit}iB": 1024**power for power, unit in enumerate("KMGT", 1)}
_SIZES |= {f"{unit}B": 1000**power for power, unit in enumerate("KMGT", 1)}
_SIZE = re.compile(rf"(\d+)({'|'.join(_SIZES)})", re.ASCII)


def parse_duration(text: str) -> int:
    """Read a duration such as `500ms`, `1m30s` or `14d`, in milliseconds. Raises ValueError: what to write instead."""
    if len(text) > 64 or not _DURATION.fullmatch(text):
        if _BARE.fullmatch(text):
            raise ValueError(f"{text} has no unit: write {text}s for seconds or {text}ms for milliseconds")
        raise ValueError(f"{text[:64]!r} is not a duration: write it like 500ms, 5s, 1m30s, 2h or 14d")
    return sum(int(number) * _UNITS_MS[unit] for number, unit in _PART.findall(text))


def format_duration(milliseconds: int) -> str:
    """Write milliseconds as `parse_duration` reads them back, and queue names hold them: `1m30s`, but `4500ms`."""
    if milliseconds == 0 or milliseconds % 1000:
        return f"{milliseconds}ms"
    parts, rest = [], milliseconds
    for unit, size in _UNITS_MS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def roughly(seconds: float) -> str:
    """Write a measured time for a person: `850ms`, `3.4s`, `41s`, `2m5s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    return f"{seconds:.1f}".removesuffix(".0") + "s" if seconds < 10 else format_duration(round(seconds) * 1000)


def parse_rate(text: str) -> float:
    """Read a rate such as `100/s` or `10/h`, a second, at most a million. Raises ValueError: what to write instead."""
    if isinstance(text, str) and _BARE.fullmatch(text):
        raise ValueError(f"{text} has no unit: write {text}/s, {text}/m or {text}/h")
    match = _RATE.fullmatch(text) if isinstance(text, str) and len(text) <= 32 else None
    rate = float(match[1]) * 1000 / _UNITS_MS[match[2]] if match else 0.0
    if not 0 < rate <= 1_000_000:
        raise ValueError(f"{text!r} is not a rate: write it like 100/s, 5000/m or 10/h")
    return rate


def parse_percentage(text: str) -> Fraction:
    """Read a percentage such as `0.5%` as a share, 1/200. Raises ValueError: what to write instead."""
    match = _PERCENTAGE.fullmatch(text)
    if match is None:
        if _BARE.fullmatch(text):
            raise ValueError(f"{text} has no unit: write {text}%")
        raise ValueError(f"{text[:32]!r} is not a percentage: write it like 10%")
    return Fraction(match[1]) / 100


def parse_size(text: str) -> int:
    """Read a size such as `64KiB` or `500MB`, in bytes. Raises ValueError: what to write instead."""
    match = _SIZE.fullmatch(text) if len(text) <= 32 else None
    if match is None:
        if _BARE.fullmatch(text):
            raise ValueError(f"{text} has no unit: write {text}B, or use KiB, MiB, GiB or TiB")
        raise ValueError(f"{text[:32]!r} is not a size: write it like 64KiB, 100MiB, 1GiB or 1TiB")
    return int(match[1]) * _SIZES[match[2]]


def format_size(number: int) -> str:
    """Write bytes in the largest binary unit that loses nothing, so that `parse_size` reads it back."""
    for unit, size in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if number and number % size == 0:
            return f"{number // size}{unit}"
    return f"{number}B"


def plural(number: int, noun: str) -> str:
    """Write a count: 1 message, 1,500 messages."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def first_few(texts: Sequence[str], most: int, separator: str = ", ") -> str:
    """Join texts, of many the first ones: a, b, c and 4 more."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more
