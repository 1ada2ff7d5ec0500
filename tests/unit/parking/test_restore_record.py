"""A record tells of each place apart what was put back there, and counts equal messages."""

from __future__ import annotations

import pytest

from amqpflow.parking.restore_record import (
    RestorePlace,
    UnreadableRecordError,
    forgotten_line,
    head_line,
    publishing_line,
    read_restored,
    restored_line,
    unpublished_line,
)

HERE = RestorePlace(cluster="rabbit@a", addresses=("a:5672", "b:5672"), vhost="/")
ONE, OTHER = "0" * 32, "1" * 32


def test_what_was_restored_elsewhere_is_not_restored_here() -> None:
    lines = [
        head_line("x"),
        restored_line(RestorePlace(cluster="rabbit@a", addresses=("a:5672",), vhost="staging"), "q", [ONE]),
        restored_line(RestorePlace(cluster="rabbit@z", addresses=("a:5672",), vhost="/"), "q", [ONE]),
        restored_line(HERE, "other", [ONE]),
    ]
    found = read_restored(lines, "x", HERE)
    assert not found.take("q", ONE)
    assert found.take("other", ONE)
    assert not found.elsewhere


def test_equal_messages_are_counted() -> None:
    found = read_restored(
        [head_line("x"), restored_line(HERE, "q", [ONE, ONE]), restored_line(HERE, "q", [OTHER])], "x", HERE
    )
    assert [found.take("q", ONE) for _ in range(3)] == [True, True, False]


def test_any_node_of_the_cluster_is_the_same_place_and_an_address_that_nothing_shares_may_be() -> None:
    lines = [head_line("x"), restored_line(HERE, "q", [ONE])]
    node = RestorePlace(cluster="rabbit@a", addresses=("b:5672",), vhost="/")
    assert read_restored(lines, "x", node).take("q", ONE)
    tunnel = RestorePlace(cluster="rabbit@a", addresses=("localhost:5672",), vhost="/")
    found = read_restored(lines, "x", tunnel)
    assert not found.take("q", ONE)
    assert found.elsewhere == {"a:5672, b:5672": 1}


def test_what_was_forgotten_counts_from_there_on_only() -> None:
    lines = [
        head_line("x"),
        restored_line(HERE, "q", [ONE, OTHER]),
        forgotten_line(HERE),
        restored_line(HERE, "q", [OTHER]),
    ]
    found = read_restored(lines, "x", HERE)
    assert (found.take("q", ONE), found.take("q", OTHER)) == (False, True)


def test_what_was_published_and_neither_confirmed_nor_refused_is_in_doubt() -> None:
    lines = [
        head_line("x"),
        publishing_line(HERE, "q", [ONE, ONE, ONE, OTHER]),
        restored_line(HERE, "q", [ONE]),
        unpublished_line(HERE, "q", [ONE, OTHER]),
    ]
    found = read_restored(lines, "x", HERE)
    assert [found.may_be_there("q", ONE) for _ in range(2)] == [True, False]
    assert not found.may_be_there("q", OTHER)
    assert not found.may_be_there("other", ONE)
    tunnel = RestorePlace(cluster="rabbit@a", addresses=("localhost:5672",), vhost="/")
    assert read_restored(lines, "x", tunnel).elsewhere == {"a:5672, b:5672": 2}
    assert read_restored([*lines, forgotten_line(HERE)], "x", HERE).may_be_there("q", OTHER)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([b"1\n"], "not a record"),
        ([b'{"format": "amqpflow.restore", "version": 1, "export": "x", "to": ""}\n', b"1\n"], "into which broker"),
        ([b'{"format": "amqpflow.restore", "version": 4, "export": "x"}\n'], "version 4"),
        ([head_line("y")], "another export"),
        ([head_line("x"), b"{\n"], "line 2 is damaged"),
        ([head_line("x"), b"{}\n"], "line 2 is damaged"),
        ([head_line("x"), restored_line(HERE, "q", ["no hex"])], "line 2 is damaged"),
    ],
)
def test_a_record_that_cannot_be_used_says_why(lines: list[bytes], says: str) -> None:
    with pytest.raises(UnreadableRecordError, match=says):
        read_restored(lines, "x", HERE)
