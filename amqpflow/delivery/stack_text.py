"""Fit the stack of an exception and of its causes into a number of bytes, the innermost frames before the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_HEAD = "Traceback (most recent call last):\n"
_LEFT_OUT = "  [{} frames left out]\n"
_MARK = len(_LEFT_OUT) + 8  #: bytes that are kept free for that line
_OWN_FIRST, _CAUSE_FIRST = 10, 3  #: innermost frames that come before the causes, and before further frames


@dataclass(frozen=True, slots=True, kw_only=True)
class StackPart:
    """The stack of one exception. Texts are whole lines, the line feed included."""

    frames: tuple[str, ...]  #: outermost first
    end: str  #: the exception itself: `KeyError: 'total'`
    left_out: int = 0  #: frames further out that are not in `frames`
    link: str = ""  #: the line between this one, a cause, and the exception that follows


def stack_text(parts: Sequence[StackPart], limit: int) -> str:
    """Return the parts as one text of at most `limit` bytes of UTF-8, the causes first, as Python prints them.

    What does not fit is left out from the outside: the exception's own end and its innermost frames are kept first,
    then the ends of its causes with a few frames each, then the other frames.

    Args:
        parts: the exception, then its cause, then the cause of that.
        limit: bytes. Below the length of the exception's own end nothing but a part of that end is returned.
    """
    kept: list[int] = []
    left = limit
    for index, most in _rounds(parts):
        part = parts[index]
        if index > len(kept):
            continue  # the one before it did not fit
        if index == len(kept):
            cost = _size(part.end) + (_size(f"\n{part.link}\n\n") if index else 0)
            cost += len(_HEAD) + _MARK if part.frames else 0
            if cost > left:
                if not index:
                    return part.end.encode("utf-8", "backslashreplace")[: max(0, limit)].decode("utf-8", "ignore")
                continue
            left -= cost
            kept.append(0)
        while kept[index] < min(most, len(part.frames)):
            cost = _size(part.frames[-1 - kept[index]])
            if cost > left:
                break
            left -= cost
            kept[index] += 1
    return "".join(_lines(parts, kept))


def _rounds(parts: Sequence[StackPart]) -> Iterator[tuple[int, int]]:
    """Yield which part may have how many frames, in the order in which room is given to them."""
    yield 0, _OWN_FIRST
    for index in range(1, len(parts)):
        yield index, _CAUSE_FIRST
    for index, part in enumerate(parts):
        yield index, len(part.frames)


def _lines(parts: Sequence[StackPart], kept: Sequence[int]) -> Iterator[str]:
    for index in reversed(range(len(kept))):
        part = parts[index]
        if part.frames:
            yield _HEAD
        first = len(part.frames) - kept[index]
        if left_out := first + part.left_out:
            yield _LEFT_OUT.format(left_out)
        yield from part.frames[first:]
        yield part.end
        if index:
            yield f"\n{part.link}\n\n"


def _size(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace"))
