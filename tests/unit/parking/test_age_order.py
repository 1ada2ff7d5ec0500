"""Messages that were delivered by priority come into the order of their age."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amqpflow.parking.age_order import AgeOrder

Message = tuple[int | None, int | None]  #: priority and time


def ordered(messages: list[Message]) -> list[Message]:
    age = AgeOrder()
    for priority, at in messages:
        age.add(priority, at)
    order = age.order()
    return messages if order is None else [messages[number] for number in order]


@given(st.lists(st.tuples(st.sampled_from([None, 0, 4, 9]), st.integers(0, 99)), max_size=40))
def test_a_strict_delivery_is_undone(parked: list[Message]) -> None:
    by_age = sorted(
        ((priority, 1000 * n + at) for n, (priority, at) in enumerate(parked)), key=lambda each: each[1] or 0
    )
    delivered = sorted(by_age, key=lambda each: -(4 if each[0] is None else each[0]))
    assert ordered(delivered) == by_age


@given(st.lists(st.tuples(st.sampled_from([None, 0, 9]), st.none() | st.integers(0, 99)), max_size=40))
def test_within_a_priority_the_order_of_the_queue_holds_whatever_the_clocks_say(delivered: list[Message]) -> None:
    numbered = list(enumerate(delivered))
    age = AgeOrder()
    for priority, at in delivered:
        age.add(priority, at)
    order = list(age.order() or range(len(delivered)))
    assert sorted(order) == list(range(len(delivered)))
    for priority in (None, 0, 9):
        mine = [number for number, each in numbered if each[0] == priority]
        assert [number for number in order if delivered[number][0] == priority] == mine


def test_one_priority_is_left_as_it_was_delivered() -> None:
    assert ordered([(None, 5), (None, 3), (None, None), (None, 4)]) == [(None, 5), (None, 3), (None, None), (None, 4)]


def test_a_message_without_a_time_stays_with_its_neighbours() -> None:
    assert ordered([(9, 20), (9, None), (9, 30), (0, 10), (0, None), (1, None)]) == [
        (0, 10),
        (0, None),
        (1, None),
        (9, 20),
        (9, None),
        (9, 30),
    ]
