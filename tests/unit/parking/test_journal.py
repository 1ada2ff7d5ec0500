"""The journal of a replay, as lines and as what they say."""

from __future__ import annotations

import pytest

from amqpflow.parking.journal import (
    JournalHead,
    JournalUnreadable,
    acked_line,
    confirmed_line,
    end_line,
    head_line,
    intent_line,
    left_line,
    read_journal,
    resumed_line,
)

HEAD = JournalHead(
    id="5f0c",
    at=1_790_000_000_000,
    by="ops@host",
    topology="shop",
    vhost="/",
    cluster="rabbit@host",
    parking_queues=("orders.parking",),
    queue="orders",
    selection={"reasons": ["exhausted"]},
    options={"rate": "50/s"},
    written_by="0.1.0",
)
KEYS = [(f"m{n}/1/0", f"{n:012x}") for n in range(6)]


def test_what_is_confirmed_left_and_in_doubt() -> None:
    lines = [
        head_line(HEAD),
        intent_line(1, KEYS[:4]),
        confirmed_line([2, 1]),
        left_line([3]),
        intent_line(5, KEYS[4:]),
        confirmed_line([5]),
    ]
    state = read_journal(lines)
    assert state.head == HEAD
    assert (state.sent, state.confirmed, state.left, state.next_number) == (6, 3, 1, 7)
    assert state.in_doubt == {4: KEYS[3], 6: KEYS[5]}
    assert state.unacked == {KEYS[0], KEYS[1], KEYS[4]}
    assert (state.end, state.is_complete) == (None, False)
    assert state.size == sum(map(len, lines))


def test_what_is_known_to_be_acked_is_not_remembered() -> None:
    state = read_journal([head_line(HEAD), intent_line(1, KEYS[:3]), confirmed_line([1, 2, 3]), acked_line(2)])
    assert (state.confirmed, state.unacked) == (3, {KEYS[2]})


def test_who_went_on_and_how_it_ended() -> None:
    lines = [head_line(HEAD), end_line({"complete": False}), resumed_line(5, "second@host")]
    state = read_journal(lines)
    assert (state.end, [each["by"] for each in state.resumed]) == (None, ["second@host"])
    state = read_journal([*lines, end_line({"complete": True, "replayed": 3})])
    assert state.is_complete


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_last_line_that_is_cut_off_was_never_acted_on(cut: int) -> None:
    whole = [head_line(HEAD), intent_line(1, KEYS[:2])]
    state = read_journal([*whole, intent_line(3, KEYS[2:])[:-cut]])
    assert (state.sent, state.size) == (2, sum(map(len, whole)))


def test_a_torn_write_that_ends_in_the_middle_of_the_second_of_two_lines() -> None:
    data = head_line(HEAD) + confirmed_line([1]) + intent_line(1, KEYS)[:20]
    assert read_journal(data.splitlines(keepends=True)).sent == 0


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "it has no first line"),
        ([b"hello\n"], "it has no first line"),
        ([b'{"format": "something"}\n'], "it is no journal of a replay"),
        ([head_line(HEAD).replace(b'"version":1', b'"version":2')], "its version is 2; this amqpflow reads version 1"),
        ([head_line(HEAD), b"\x00\x00\n", confirmed_line([1])], "line 2 is damaged"),
        ([head_line(HEAD), b'{"send": 1, "keys": [1]}\n'], "line 2 is not understood"),
        ([b'{"format":"amqpflow replay journal","version":1}\n'], "line 1 is not understood: KeyError"),
    ],
)
def test_what_is_no_journal_says_so(lines: list[bytes], says: str) -> None:
    with pytest.raises(JournalUnreadable, match=says):
        read_journal(lines)


def test_lines_that_a_later_version_adds_are_passed_over() -> None:
    assert read_journal([head_line(HEAD), b'{"note": "x"}\n', intent_line(1, KEYS)]).sent == 6
