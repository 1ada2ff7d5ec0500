from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.units import format_size, parse_size


@given(st.integers(0, 1 << 60))
def test_a_size_is_written_so_that_it_is_read_back(number: int) -> None:
    assert parse_size(format_size(number)) == number


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0B"), (1000, "1000B"), (65536, "64KiB"), (1 << 30, "1GiB"), (3 << 20, "3MiB"), (1 << 41, "2TiB")],
)
def test_a_size_is_written_in_the_largest_unit(number: int, text: str) -> None:
    assert format_size(number) == text


def test_terabytes_are_sizes() -> None:
    assert parse_size("1TiB") == 1 << 40
    assert parse_size("2TB") == 2 * 10**12
