"""A soak's judgement: standstills, and where every message is."""

from __future__ import annotations

import pytest

from tests.soak.ledger import Ledger, account, grown, idle_spans, standstill


@pytest.mark.parametrize(
    ("times", "not_counted", "longest"),
    [
        pytest.param([1.0, 2.0, 9.0], [], 7.0, id="between two"),
        pytest.param([], [], 10.0, id="none at all"),
        pytest.param([1.0], [], 9.0, id="after the last"),
        pytest.param([6.0, 7.0], [], 6.0, id="before the first"),
        pytest.param([1.0, 9.0], [(2.0, 8.0)], 2.0, id="the broker was away"),
        pytest.param([5.0], [(0.0, 3.0)], 5.0, id="away for a part"),
        pytest.param([-1.0, 5.0, 11.0], [], 5.0, id="what is outside"),
    ],
)
def test_a_standstill_is_the_longest_time_without_a_message(
    times: list[float], not_counted: list[tuple[float, float]], longest: float
) -> None:
    assert standstill(times, (0.0, 10.0), not_counted) == longest


def test_time_without_anything_to_do_is_no_standstill() -> None:
    samples = [(0.0, True), (1.0, False), (2.0, False), (3.0, True)]
    assert idle_spans(samples) == [(0.0, 1.0), (1.0, 2.0)]
    assert standstill([0.5, 5.0], (0.0, 5.0), idle_spans(samples)) == 3.0


def ledger(*lines: str) -> Ledger:
    read = Ledger()
    for line in lines:
        read.read(line)
    return read


def test_every_message_is_accounted_for() -> None:
    sent = ["ok-1", "ok-2", "ok-3", "park-4", "park-5", "exhaust-6", "ok-7"]
    seen = ledger(
        "C 1.0 q ok-1 1 ok-1/0/0", "D 1.1 q ok-1 1 ok-1/0/0", "D 1.2 q ok-1 1 ok-1/0/0", "D 1.3 q park-5 1 park-5/0/0"
    )
    parked = {"park-4": [("parked", "h")], "exhaust-6": [("permanent", "h")], "ok-7": [("crashed", "h")]}
    found = account(sent, seen, parked, {"ok-3": 1})
    assert found.lost == ["ok-2"]
    assert found.again == 1
    assert [each.partition(" ")[0] for each in found.elsewhere] == ["ok-3", "park-5", "exhaust-6", "ok-7"]


@pytest.mark.parametrize(("calls", "explained"), [(1, False), (2, True)])
def test_a_second_copy_is_told_by_its_hop_id_or_by_a_call_that_failed(calls: int, explained: bool) -> None:
    seen = ledger(
        *["C 1.0 q ok-1 1 ok-1/0/0"] * calls,
        "D 1.1 q ok-1 1 ok-1/0/0",
        "C 2.0 q ok-1 2 ok-1/0/1",
        "D 2.1 q ok-1 2 ok-1/0/1",
    )
    found = account(["ok-1"], seen, {}, {})
    assert (found.after_failure == 1, len(found.unexplained) == 0) == (explained, explained)
    assert bool(found.problems) != explained


def test_memory_that_grows_is_seen_and_a_peak_is_not() -> None:
    assert grown([10.0, 40.0] * 50) == 0
    assert grown([float(each) for each in range(100)]) == 50
    assert grown([1.0]) == 0
