"""The order of `order_by`: who starts next, in how much work, and what outlives a session."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import Any

from amqpflow import Message
from amqpflow.model.message import Delivery
from amqpflow.services.handling.ordering import KeyOrdering, SessionOrdering
from tests.deliveries import delivery


class Keys:
    """Keys by the message id's first letter, counted."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, message: Message) -> Any:
        self.asked += 1
        return None if message.message_id is None else message.message_id[0]


async def _not_here(message: Message) -> None:
    raise AssertionError("nothing is large here")


def made() -> tuple[KeyOrdering, Keys]:
    keys = Keys()
    return KeyOrdering(keys, 1000, native=False, unpack=_not_here), keys


def deliveries(*ids: str | None, first_tag: int = 1) -> deque[Delivery]:
    return deque(replace(delivery(message_id=each), delivery_tag=first_tag + n) for n, each in enumerate(ids))


def ids(found: list[Delivery]) -> list[str | None]:
    return [each.header.message_id for each in found]


def picked(session: SessionOrdering, waiting: deque[Delivery]) -> list[Delivery]:
    found = []
    while (each := session.pick(waiting)) is not None:
        found.append(each)
    return found


def test_one_of_a_key_starts_and_the_next_when_it_is_settled_in_their_order() -> None:
    ordering, _ = made()
    woken: list[None] = []
    session = ordering.of_session(lambda: woken.append(None))
    waiting = deliveries("a1", "a2", "b1", None, "a3", None)
    assert ids(picked(session, waiting)) == ["a1", "b1", None, None]
    assert len(session) == 2
    assert not woken
    session.settled(1)
    assert woken
    waiting.extend(deliveries("a4", first_tag=9))
    assert ids(picked(session, waiting)) == ["a2"]
    session.settled(2)
    assert ids(picked(session, waiting)) == ["a3"]
    session.settled(5)
    assert ids(picked(session, waiting)) == ["a4"]
    session.settled(9)
    session.settled(3)
    assert not ordering.taken
    assert len(session) == 0


def test_finding_the_next_of_a_hot_key_does_not_look_at_all_that_wait() -> None:
    ordering, keys = made()
    session = ordering.of_session(lambda: None)
    waiting = deliveries(*("hot" for _ in range(5000)))
    for tag in range(1, 5001):
        (started,) = picked(session, waiting)
        assert started.delivery_tag == tag
        session.settled(tag)
    assert keys.asked == 5000
    assert not ordering.taken


def test_nothing_is_kept_of_keys_that_were_settled() -> None:
    ordering, _ = made()
    session = ordering.of_session(lambda: None)
    for tag in range(1, 2000):
        assert len(picked(session, deliveries(chr(0x100 + tag), first_tag=tag))) == 1
        session.handling(tag)
        session.settled(tag)
        session.handled(tag, held=False)
    assert not ordering.taken
    assert not session._started
    assert not session._handled
    assert not session._behind


def test_a_handler_that_runs_keeps_its_key_on_the_next_session_until_it_ends() -> None:
    ordering, _ = made()
    old = ordering.of_session(lambda: None)
    picked(old, deliveries("a1", "a2", "b1", "c1"))
    old.handling(1)
    old.handling(4)
    old.handled(4, held=True)  # its copy is on the way
    old.over()
    assert ordering.taken == {"a"}, "b had not begun, c has ended"
    woken: list[None] = []
    new = ordering.of_session(lambda: woken.append(None))
    waiting = deliveries("a1", "a2", "b1", "c1")
    assert ids(picked(new, waiting)) == ["b1", "c1"]
    # tags are those of another channel
    new.settled(3)
    new.settled(4)
    assert ordering.taken == {"a"}
    old.settled(1)
    assert not woken, "its handler still runs"
    old.handled(1, held=False)
    assert woken
    assert ids(picked(new, waiting)) == ["a1"]
    new.handling(1)
    new.settled(1)
    assert ids(picked(new, waiting)) == [], "given back while its handler runs, as when it stops"
    new.handled(1, held=False)
    assert ids(picked(new, waiting)) == ["a2"]


def test_a_session_that_is_over_takes_no_key() -> None:
    ordering, _ = made()
    old = ordering.of_session(lambda: None)
    waiting = deliveries("a1", "a2", "b1")
    first = old.pick(waiting)
    assert first is not None
    assert first.header.message_id == "a1"
    old.handling(1)
    old.over()
    old.handled(1, held=False)
    assert picked(old, waiting) == []
    assert not ordering.taken
    assert ids(picked(ordering.of_session(lambda: None), deliveries("a1", "a2", "b1"))) == ["a1", "b1"]


def test_what_is_taken_out_may_come_in_again() -> None:
    ordering, _ = made()
    session = ordering.of_session(lambda: None)
    waiting = deliveries("a1", "a2", "a3")
    picked(session, waiting)
    assert ids(session.waiting()) == ["a2", "a3"]
    waiting.extend(session.drain())
    assert len(session) == 0
    session.settled(1)
    assert ids(picked(session, waiting)) == ["a2"]
    assert len(session) == 1


def test_a_large_body_holds_up_those_behind_it_until_its_key_is_known() -> None:
    async def scenario() -> None:
        unpacked = asyncio.Event()

        async def unpack(message: Message) -> None:
            await unpacked.wait()

        ordering = KeyOrdering(Keys(), 1000, native=False, unpack=unpack)
        woken = asyncio.Event()
        session = ordering.of_session(woken.set)
        large = delivery(message_id="a1", content_encoding="gzip", body=b"x" * 10_000)
        waiting = deque([large, *deliveries("a2", "b1", first_tag=2)])
        assert picked(session, waiting) == []
        unpacked.set()
        await woken.wait()
        assert ids(picked(session, waiting)) == ["a1", "b1"]

        # one whose session ends meanwhile
        unpacked.clear()
        other = ordering.of_session(woken.set)
        assert picked(other, deque([large])) == []
        other.over()
        await asyncio.sleep(0)

    asyncio.run(scenario())
