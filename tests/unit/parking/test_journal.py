"""The journal of a replay, as lines and as what they say."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from amqpflow.parking.journal import JournalHead, UnreadableJournalError, finished, is_finished, read_head, read_journal
from amqpflow.parking.journal_lines import (
    acked_line,
    acking_line,
    confirmed_line,
    end_line,
    head_line,
    intent_line,
    left_line,
    only_line,
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
    queues=("orders",),
    selection={"reasons": ["exhausted"]},
    options={"rate": 50.0},
    written_by="0.1.0",
)
KEYS = [(f"m{n}/1/0", f"{n:032x}{'d' * 16}") for n in range(6)]
OLD = (
    b'{"format":"amqpflow replay journal","version":1,"id":"01d","at":5,"by":"ops@host","topology":"shop","vhost":"/",'
    b'"cluster":"rabbit@host","address":"","parking_queues":["orders.parking"],"queue":"a, b","selection":{},'
    b'"options":{"rate":"50/s"},"written_by":"0.1.0"}\n',
    b'{"send":1,"keys":[["m1/1/0","aa"],["m2/1/0","bb"],["m3/1/0","cc"],["m4/1/0","dd"]]}\n',
    b'{"confirmed":[[1,2]]}\n',
    b'{"left":[[4,4]]}\n',
    b'{"acked":1}\n',
)


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
    assert state.unacked == {1: KEYS[0], 2: KEYS[1], 5: KEYS[4]}
    assert (state.leaving, state.done) == ({}, 3)
    assert (state.end, state.is_complete) == (None, False)
    assert state.size == sum(map(len, lines))


def test_what_is_about_to_be_acked_is_not_known_to_be_parked() -> None:
    lines = [head_line(HEAD), intent_line(1, KEYS[:4]), confirmed_line([1, 2, 3]), acking_line([1, 3])]
    state = read_journal(lines)
    assert (state.unacked, state.leaving) == ({2: KEYS[1]}, {1: KEYS[0], 3: KEYS[2]})
    assert list(state.unsettled()) == [KEYS[3], KEYS[1], KEYS[0], KEYS[2]]
    # it could not be acked after all
    state = read_journal([*lines, confirmed_line([3])])
    assert (state.unacked, state.leaving, state.confirmed) == ({2: KEYS[1], 3: KEYS[2]}, {1: KEYS[0]}, 3)


def test_what_is_known_to_be_acked_is_not_remembered() -> None:
    begun = [head_line(HEAD), intent_line(1, KEYS[:3]), confirmed_line([1, 2, 3]), acking_line([1, 2])]
    state = read_journal([*begun, acked_line(1, 3)])
    assert (state.confirmed, state.unacked, state.leaving) == (3, {3: KEYS[2]}, {})
    assert read_journal([*begun, acked_line(2, 3)]).leaving == {1: KEYS[0]}


def test_what_it_may_take_of_a_list_becomes_less_with_each_that_is_gone() -> None:
    one, two = KEYS[0][1][:32], "f" * 32
    lines = [head_line(HEAD), only_line([one, one, two]), intent_line(1, KEYS[:1]), confirmed_line([1])]
    assert read_journal(lines).only == Counter({one: 2, two: 1})
    assert read_journal([*lines, acking_line([1]), acked_line(1, 1)]).only == Counter({one: 1, two: 1})
    assert read_journal([head_line(HEAD)]).only is None


def test_who_resumed_it_and_how_it_ended() -> None:
    lines = [head_line(HEAD), end_line({"complete": False}), resumed_line(5, "second@host")]
    state = read_journal(lines)
    assert (state.end, [each["by"] for each in state.resumed]) == (None, ["second@host"])
    state = read_journal([*lines, end_line({"complete": True, "replayed": 3})])
    assert state.is_complete


def test_a_finished_journal_is_known_by_its_first_line_and_its_last() -> None:
    lines = [
        head_line(HEAD),
        resumed_line(5, "second@host"),
        intent_line(1, KEYS),
        confirmed_line([1, 2]),
        left_line([3]),
    ]
    state = read_journal(lines)
    last = end_line({"complete": True, **state.totals()})
    found = finished(read_head(lines[0]), last)
    assert found is not None
    whole = read_journal([*lines, last])
    assert (found.head, found.sent, found.confirmed, found.left, found.resumed, found.end) == (
        whole.head,
        6,
        2,
        1,
        whole.resumed,
        whole.end,
    )
    for unfinished in (end_line({"complete": False, **state.totals()}), last[:-1], b"", resumed_line(6, "x")):
        assert finished(HEAD, unfinished) is None
        assert not is_finished(unfinished)
    # one without its counts is finished, and has to be read to tell them
    assert is_finished(end_line({"complete": True}))
    assert finished(HEAD, end_line({"complete": True})) is None


def test_in_a_journal_of_the_old_version_nothing_is_known_to_be_parked() -> None:
    state = read_journal(OLD)
    assert (state.head.version, state.head.queues, state.head.queue) == (1, ("a", "b"), "a, b")
    assert (state.sent, state.confirmed, state.left) == (4, 2, 1)
    assert (state.unacked, state.leaving, state.in_doubt) == ({}, {2: ("m2/1/0", "bb")}, {3: ("m3/1/0", "cc")})


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
        ([b'{"format": "something"}\n'], "it is not a journal of a replay"),
        (
            [head_line(HEAD).replace(b'"version":2', b'"version":3')],
            "its version is 3; this amqpflow reads versions 1 and 2",
        ),
        ([head_line(HEAD), b"\x00\x00\n", confirmed_line([1])], "line 2 is damaged"),
        ([head_line(HEAD), b'{"send": 1, "keys": [1]}\n'], "line 2 cannot be read"),
        ([b'{"format":"amqpflow replay journal","version":2}\n'], "line 1 cannot be read: KeyError"),
        ([b"[]\n"], "it has no first line"),
    ],
)
def test_what_is_no_journal_says_so(lines: list[bytes], says: str) -> None:
    with pytest.raises(UnreadableJournalError, match=says):
        read_journal(lines)
    if lines and says.startswith(("it", "line 1")):
        with pytest.raises(UnreadableJournalError, match=says):
            read_head(lines[0])


def test_lines_that_a_later_version_adds_are_passed_over() -> None:
    assert read_journal([head_line(HEAD), b'{"note": "x"}\n', intent_line(1, KEYS)]).sent == 6
    assert json.loads(head_line(HEAD))["version"] == 2


def test_what_a_later_run_sends_again_counts_once() -> None:
    first = [head_line(HEAD), intent_line(1, KEYS[:2]), confirmed_line([1, 2]), acking_line([1, 2])]
    assert read_journal(first).done == 2
    again = [*first, intent_line(3, KEYS[:1], again=[2])]
    in_doubt = read_journal(again)
    assert (in_doubt.done, set(in_doubt.leaving), set(in_doubt.in_doubt)) == (1, {1}, {3})
    confirmed = read_journal([*again, confirmed_line([3]), acking_line([3])])
    assert (confirmed.done, set(confirmed.leaving)) == (2, {1, 3})
    assert read_journal([*again, left_line([3])]).done == 1
