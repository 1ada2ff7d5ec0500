"""Which lines of a flood are written, and that every line is written or counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amqpflow.delivery.log_lines import MOST, WINDOW, Lines, is_over, with_one_more


@given(st.lists(st.floats(0, 3), max_size=300))
def test_every_line_is_written_or_counted_and_a_window_has_no_more_than_its_share(pauses: list[float]) -> None:
    now, lines, written, counted = 0.0, None, 0, 0
    for pause in pauses:
        now += pause
        if lines is not None and is_over(lines, now):
            counted += lines.left_out
        before = lines
        lines = with_one_more(lines, now)
        assert lines.since <= now < lines.since + WINDOW
        assert lines.written <= MOST
        assert not lines.left_out or lines.written == MOST
        written += lines.left_out == 0 or (before is not None and lines.left_out == before.left_out)
    assert written + counted + (lines.left_out if lines else 0) == len(pauses)


def test_a_clock_that_jumps_back_begins_a_window() -> None:
    assert with_one_more(Lines(100.0, MOST, 7), 50.0) == Lines(50.0, 1)
