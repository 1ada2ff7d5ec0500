from __future__ import annotations

import socket

import pytest

from tests.brokers.selection import NoBroker, find_candidates, matches, parse_version


@pytest.mark.parametrize(
    ("version", "conditions", "fits"),
    [
        ((3, 10, 8), ">=3.10", True),
        ((3, 10, 8), "<4", True),
        ((3, 10, 8), ">=4.0", False),
        ((4, 0, 5), ">=4.0, <4.3", True),
        ((4, 3, 6), ">=4.0, <4.3", False),
        ((4, 3, 6), "==4.3", True),
        ((4, 3, 6), "==4.3.5", False),
        ((4, 3, 6), "!=4.3", False),
    ],
)
def test_a_release_condition_is_read_as_far_as_it_goes(version: tuple[int, ...], conditions: str, fits: bool) -> None:
    assert matches(version, conditions) is fits


def test_a_condition_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a condition"):
        matches((4, 3), "4.3 or later")


@pytest.mark.parametrize(("text", "version"), [("3.10.8", (3, 10, 8)), ("4.3.0-rc.1", (4, 3, 0)), ("", ())])
def test_versions_are_read(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


def test_a_named_broker_that_does_not_answer_is_an_error_that_names_it() -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))  # bound and never listening: a connection is refused
        port = occupied.getsockname()[1]
        urls = f"amqp://guest:secret@127.0.0.1:{port}/|http://127.0.0.1:{port}"
        with pytest.raises(NoBroker, match="AMQPFLOW_TEST_URLS names amqp://guest:") as problem:
            find_candidates({"AMQPFLOW_TEST_URLS": urls})
    assert "secret" not in str(problem.value)
