"""Acks written together ack what was settled and nothing else: judged by a broker that keeps its accounts."""

from __future__ import annotations

import pamqp.frame
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.rabbitmq.ack_batcher import AckBatcher


class Broker:
    """What is unacked of a channel, by the rules of AMQP 0-9-1."""

    def __init__(self) -> None:
        self.unacked: set[int] = set()
        self.acked: set[int] = set()
        self.frames = 0

    def read(self, data: bytes) -> None:
        while data:
            size, _, ack = pamqp.frame.unmarshal(data)
            data = data[size:]
            self.frames += 1
            tags = {tag for tag in self.unacked if tag <= ack.delivery_tag} if ack.multiple else {ack.delivery_tag}
            assert tags <= self.unacked, "an ack for what is not unacked closes the channel"
            self.unacked -= tags
            self.acked |= tags


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(1, 5)),
        st.tuples(st.sampled_from(["ack", "keep", "nack", "ack up to", "nack up to"]), st.integers(0, 100)),
        st.tuples(st.just("write"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_broker_has_acked_what_was_acked_and_nothing_else(steps: list[tuple[str, int]]) -> None:
    settlements, broker = AckBatcher(3), Broker()
    ours: list[int] = []  # unsettled
    acked: set[int] = set()
    last = 0
    for what, number in [*steps, ("write", 0)]:
        if what == "deliver":
            for _ in range(number):
                last += 1
                settlements.delivered(last)
                broker.unacked.add(last)
                ours.append(last)
        elif what == "write":
            broker.read(settlements.frames()[0])
            assert broker.acked == acked
            assert broker.unacked == set(ours)
        elif ours:
            tag = ours[number % len(ours)]
            if what == "ack":
                settlements.ack(tag)
                ours.remove(tag)
                acked.add(tag)
                continue
            if what == "keep":
                settlements.keep(tag)
                continue
            multiple = what.endswith("up to")
            if multiple:
                broker.read(settlements.frames()[0])  # as the channel does before it writes a multiple of its own
            settlements.forget(tag, multiple=multiple)
            tags = {each for each in ours if each <= tag} if multiple else {tag}
            ours = [each for each in ours if each not in tags]
            broker.unacked -= tags
            if what.startswith("ack"):
                broker.acked |= tags
                acked |= tags


def test_what_was_settled_in_order_is_one_frame() -> None:
    settlements, broker = AckBatcher(3), Broker()
    for tag in range(1, 201):
        settlements.delivered(tag)
        broker.unacked.add(tag)
    for tag in range(200, 0, -1):
        settlements.ack(tag)
    data, count = settlements.frames()
    broker.read(data)
    assert (count, broker.frames, broker.unacked) == (200, 1, set())
    assert settlements.frames() == (b"", 0)


def test_a_slow_handler_holds_up_no_ack_but_its_own() -> None:
    settlements, broker = AckBatcher(3), Broker()
    for tag in (1, 2, 3, 4, 5):
        settlements.delivered(tag)
        broker.unacked.add(tag)
    for tag in (1, 2, 4, 5):
        settlements.ack(tag)
    broker.read(settlements.frames()[0])
    assert broker.unacked == {3}
    assert broker.frames == 3  # up to 2, then 4, then 5


def test_what_is_given_back_is_no_gap() -> None:
    settlements = AckBatcher(3)
    for tag in (1, 2, 3):
        settlements.delivered(tag)
    settlements.forget(2, multiple=False)  # its nack is written before the acks
    settlements.ack(1)
    settlements.ack(3)
    _, _, ack = pamqp.frame.unmarshal(settlements.frames()[0])
    assert (ack.delivery_tag, ack.multiple) == (3, True)


def test_a_closed_channel_acks_nothing() -> None:
    settlements = AckBatcher(3)
    settlements.delivered(1)
    settlements.ack(1)
    settlements.clear()
    assert settlements.frames() == (b"", 0)


def test_what_is_kept_is_not_acked_with_what_came_after_it() -> None:
    settlements, broker = AckBatcher(3), Broker()
    for tag in range(1, 7):
        settlements.delivered(tag)
        broker.unacked.add(tag)
    settlements.keep(3)
    for tag in (1, 2, 4, 5):
        settlements.ack(tag)
    broker.read(settlements.frames()[0])
    assert broker.unacked == {3, 6}
    for tag in (3, 6):  # it may be acked all the same
        settlements.ack(tag)
    broker.read(settlements.frames()[0])
    assert broker.unacked == set()
