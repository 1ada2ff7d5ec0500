"""How many messages a reading asks for at once."""

from __future__ import annotations

import pytest

from amqpflow.services.reading.fetch_size import (
    AT_ONCE_BYTES,
    AT_ONCE_UNKNOWN,
    LARGEST_HEADERS,
    MAX_PREFETCH,
    FetchSize,
)
from tests.parked import delivered


def test_nothing_is_known_before_a_message_was_seen() -> None:
    assert FetchSize(None).messages() == AT_ONCE_UNKNOWN


def test_statistics_count_bodies_alone_so_the_largest_headers_are_expected() -> None:
    assert FetchSize(1_000_000).messages() == AT_ONCE_BYTES // (1_000_000 + LARGEST_HEADERS)


@pytest.mark.parametrize("average", [None, 10.0])
def test_messages_that_were_seen_count_more_than_an_average_that_is_smaller(average: float | None) -> None:
    size = FetchSize(average)
    for body in (b"x" * 2_000_000, b"x" * 4_000_000):
        size.add(delivered("orders", body=body))
    header = len(delivered("orders").header.payload)
    assert size.messages() == int(AT_ONCE_BYTES / (3_000_000 + header))


def test_small_messages_fill_a_prefetch_and_a_huge_one_comes_alone() -> None:
    small, huge = FetchSize(None), FetchSize(2.0 * AT_ONCE_BYTES)
    small.add(delivered("orders", body=b""))
    assert (small.messages(), huge.messages()) == (MAX_PREFETCH, 1)
