"""What of a stack is kept in a number of bytes: the end, and the innermost frames."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from amqpflow.delivery.stack_text import StackPart, stack_text

LINK = "The above exception was the direct cause of the following exception:"
some_lines = st.text(min_size=1, max_size=60).map(lambda text: text.replace("\n", " ").replace("\r", " ") + "\n")
parts = st.lists(
    st.builds(StackPart, frames=st.lists(some_lines, max_size=30).map(tuple), end=some_lines, link=st.just(LINK)),
    min_size=1,
    max_size=5,
)


def frames(count: int, of: str = "f") -> tuple[str, ...]:
    return tuple(f'  File "{of}.py", line {number}\n' for number in range(count))


@given(parts, st.integers(0, 2000))
@example([StackPart(frames=(), end="0\n", link=LINK)] * 3, 146)
def test_a_stack_is_never_longer_than_it_may_be_and_ends_with_its_exception(these: list[StackPart], limit: int) -> None:
    text = stack_text(these, limit)
    assert len(text.encode()) <= limit
    assert text.endswith(these[0].end) or these[0].end.startswith(text)


@given(parts)
def test_what_has_room_is_whole_the_causes_first(these: list[StackPart]) -> None:
    text = stack_text(these, 1_000_000)
    assert "left out" not in text.replace("".join("".join(each.frames) for each in these), "")
    at = 0
    for part in reversed(these):
        at = text.index("".join(part.frames) + part.end, at) + 1


def test_of_a_long_stack_the_innermost_frames_are_kept() -> None:
    text = stack_text([StackPart(frames=frames(500), end="KeyError: 'x'\n")], 1000)
    assert text.startswith("Traceback (most recent call last):\n  [")
    assert " frames left out]\n" in text
    assert text.endswith("  File \"f.py\", line 499\nKeyError: 'x'\n")
    assert 900 < len(text) <= 1000


def test_a_cause_keeps_its_end_beside_a_long_stack() -> None:
    own = StackPart(frames=frames(500), end="Invalid: no\n")
    cause = StackPart(frames=frames(500, "cause"), end="KeyError: 'x'\n", link=LINK)
    text = stack_text([own, cause], 2000)
    first, second = text.split(f"\n{LINK}\n\n")
    assert first.endswith("line 498\n  File \"cause.py\", line 499\nKeyError: 'x'\n")
    assert second.endswith('  File "f.py", line 499\nInvalid: no\n')
    assert second.count("File") > 10 > first.count("File") >= 3, "its own stack says more"


def test_a_cause_without_room_is_left_out_with_what_it_came_from() -> None:
    own = StackPart(frames=frames(3), end="Invalid: no\n")
    long = StackPart(frames=frames(3), end="KeyError: " + "x" * 1000 + "\n", link=LINK)
    short = StackPart(frames=(), end="OSError\n", link=LINK)
    assert "OSError" not in stack_text([own, long, short], 500)
    assert "OSError" in stack_text([own, short, long], 500)


def test_the_empty_line_after_a_link_counts() -> None:
    these = [StackPart(frames=(), end="one\n", link=LINK), StackPart(frames=(), end="two\n", link=LINK)]
    whole = stack_text(these, 1000)
    assert whole == f"two\n\n{LINK}\n\none\n"
    assert stack_text(these, len(whole)) == whole
    assert stack_text(these, len(whole) - 1) == "one\n"
