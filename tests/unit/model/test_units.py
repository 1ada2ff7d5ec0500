"""Durations, rates, percentages and sizes as people write them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.units import format_duration, parse_duration, parse_percentage, parse_rate, parse_size

TEN_YEARS = 315_360_000_000


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0s", 0),
        ("500ms", 500),
        ("5s", 5_000),
        ("1m30s", 90_000),
        ("2h", 7_200_000),
        ("14d", 1_209_600_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("90s", 90_000),
        ("30s1m", 90_000),
        ("007s", 7_000),
    ],
)
def test_durations_are_read_as_milliseconds(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5", "5 has no unit: write 5s for seconds or 5ms for milliseconds"),
        ("1.5m", "'1.5m' is not a duration"),
        ("5 s", "'5 s' is not a duration"),
        ("-5s", "'-5s' is not a duration"),
        ("5S", "'5S' is not a duration"),
        ("5w", "'5w' is not a duration"),
        ("", "'' is not a duration"),
        ("s", "'s' is not a duration"),
        ("٥s", "'٥s' is not a duration"),
        ("5s\n", "is not a duration"),
        ("9" * 1000 + "s", "is not a duration"),
    ],
)
def test_what_is_no_duration_says_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0ms"), (4_500, "4500ms"), (5_000, "5s"), (90_000, "1m30s"), (86_400_000, "1d"), (TEN_YEARS, "3650d")],
)
def test_durations_are_written_in_their_shortest_form(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text


@given(st.integers(0, TEN_YEARS))
def test_a_written_duration_is_read_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@given(st.integers(0, TEN_YEARS), st.integers(0, TEN_YEARS))
def test_two_durations_are_never_written_alike(one: int, other: int) -> None:
    assert (format_duration(one) == format_duration(other)) == (one == other)


@given(st.text(max_size=80))
def test_any_text_is_a_duration_or_is_refused(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except ValueError as error:
        assert "write" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65_536),
        ("1GiB", 1_073_741_824),
        ("100MiB", 104_857_600),
        ("5B", 5),
        ("2KB", 2_000),
        ("3GB", 3 * 10**9),
    ],
)
def test_sizes_are_read_as_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["5", "1G", "1kb", "1.5GiB", "-1B", "1 GiB", "", "9" * 50 + "B"])
def test_what_is_no_size_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|use"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "per_second"), [("100/s", 100), ("5000/m", 5000 / 60), ("36/h", 0.01), ("0.5/s", 0.5)]
)
def test_a_rate_is_read(text: str, per_second: float) -> None:
    assert parse_rate(text) == pytest.approx(per_second)


@pytest.mark.parametrize("text", ["100/d", "0/s", "-1/s", "1e9/s", "9999999/s", "/s", "1/s ", "9" * 100 + "/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)


def test_a_rate_without_a_unit_says_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"^50 has no unit: write 50/s, 50/m or 50/h$"):
        parse_rate("50")


@pytest.mark.parametrize(
    ("text", "share"), [("10%", Fraction(1, 10)), ("0%", 0), ("100%", 1), ("0.5%", Fraction(1, 200)), ("250%", 2.5)]
)
def test_a_percentage_is_read_exactly(text: str, share: Fraction) -> None:
    assert parse_percentage(text) == share


@pytest.mark.parametrize("text", ["", "%", "0.1", "-1%", "1e1%", "10 %", "1234%", "1.%", "١%"])
def test_what_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a percentage: write it like 10%"):
        parse_percentage(text)


def test_a_percentage_without_its_sign_says_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"^10 has no unit: write 10%$"):
        parse_percentage("10")
