"""Content encodings undone: the result, and that a producer cannot make it more work than its bytes."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from amqpflow.model.decompression import LARGE, decompress, may_take_long

LIMIT = 64 * 1024 * 1024
EMPTY = gzip.compress(b"")


@pytest.fixture
def given_to_zlib(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the pieces that zlib is given; what is behind a member is copied each time."""
    sizes: list[int] = []
    made = zlib.decompressobj

    class Counting:
        def __init__(self, window: int) -> None:
            self._real = made(window)

        def decompress(self, data: Any, limit: int) -> bytes:
            sizes.append(len(data))
            return self._real.decompress(data, limit)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    return sizes


@pytest.mark.parametrize("members", [1, 2, 5_000])
def test_the_members_of_a_gzip_body_are_one_after_the_other(members: int) -> None:
    body = b"".join(gzip.compress(b"%d," % number) for number in range(members))
    assert decompress(body, "gzip", LIMIT) == b"".join(b"%d," % number for number in range(members))


def test_zeros_between_and_behind_members_are_padding() -> None:
    body = gzip.compress(b"a") + b"\0" * 200_000 + gzip.compress(b"b") + b"\0" * 200_000
    assert decompress(body, "gzip", LIMIT) == b"ab"


@pytest.mark.parametrize("ballast", [b"\x1f\x8b" + b"A" * (8 << 20), EMPTY * 100_000, b"\0" * (8 << 20)])
def test_many_members_before_much_else_are_no_more_work_than_their_bytes(
    ballast: bytes, given_to_zlib: list[int]
) -> None:
    body = EMPTY * 999 + ballast
    try:
        decompress(body, "gzip", LIMIT)
    except ValueError:
        pass
    assert sum(given_to_zlib) < len(body) + 10_000 * (64 * 1024 + len(EMPTY))


def test_a_body_that_grows_past_the_limit_is_given_up_there(given_to_zlib: list[int]) -> None:
    body = gzip.compress(b"\0" * (256 << 20), 1)
    with pytest.raises(ValueError, match="grows past 1000000 bytes"):
        decompress(body, "gzip", 1_000_000)
    assert sum(given_to_zlib) < len(body) / 10
    assert len(decompress(gzip.compress(b"\0" * 1_000_000), "gzip", 1_000_000)) == 1_000_000


@pytest.mark.parametrize("cut", [1, 5, 100_000])
def test_a_body_that_is_cut_short_is_not_taken_for_a_whole_one(cut: int) -> None:
    whole = gzip.compress(bytes(range(256)) * 1000 + b"".join(b"%d" % n for n in range(60_000)), 1)
    with pytest.raises(ValueError, match="cut short"):
        decompress(whole[:-cut], "gzip", LIMIT)


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip," * 80, "br", "identity", "", None, "\udcff"])
def test_a_chain_of_encodings_is_left_as_it_is(encoding: str | None) -> None:
    body = gzip.compress(gzip.compress(b"x" * 100_000))
    assert decompress(body, encoding, 10) is body
    assert not may_take_long(body + b"\0" * LARGE, encoding)


def test_only_an_encoded_body_of_some_size_may_take_long() -> None:
    assert may_take_long(b"\0" * (LARGE + 1), " GZIP ")
    assert not may_take_long(b"\0" * LARGE, "gzip")
