"""Which losses of a message a process lived through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amqpflow.delivery.crashes import Survived, identity
from amqpflow.delivery.incoming import Incoming
from amqpflow.services.consuming import suspects
from amqpflow.services.consuming.suspects import Suspects
from tests.deliveries import QUEUE, delivery


def message(name: str, body: bytes = b"{}") -> Incoming:
    return Incoming(delivery(message_id=name, body=body), native=False)


HELD, OTHER = message("held"), message("other")


def test_what_was_held_is_counted_once_for_each_session_that_held_it() -> None:
    found = Suspects()
    found.live_through(QUEUE, [HELD])
    found.live_through(QUEUE, [HELD, OTHER])
    assert found.survived(HELD) == Survived(held=2)
    assert found.survived(OTHER) == Survived(held=1, unseen=1)
    assert found.survived(message("held", b"another body")) == Survived(unseen=2)


def test_large_messages_are_told_apart_by_their_last_byte() -> None:
    found, large = Suspects(), bytes(1024 * 1024)
    found.live_through(QUEUE, [message("same", large + b"1")])
    assert found.survived(message("same", large + b"1")) == Survived(held=1)
    assert found.survived(message("same", large + b"2")) == Survived(unseen=1)


def test_what_was_not_held_may_have_been_on_its_way_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(suspects.time, "monotonic", lambda: now)
    found = Suspects()
    found.live_through(QUEUE, [HELD])
    assert found.survived(OTHER) == Survived(unseen=1)
    now += 61
    assert found.survived(OTHER) == Survived()
    assert found.survived(HELD) == Survived(held=1), "of this it is certain"
    found.live_through(QUEUE, [])
    assert found.survived(HELD) == Survived(held=1, unseen=1)


def test_losses_of_another_queue_are_not_counted() -> None:
    found = Suspects()
    found.live_through("another", [])
    elsewhere = Incoming(replace(HELD.delivery, queue="another"), native=False)
    assert (found.survived(HELD), found.survived(elsewhere)) == (Survived(), Survived(unseen=1))


def test_a_message_that_ended_its_session_did_not_survive_it() -> None:
    found = Suspects()
    found.live_through(QUEUE, [HELD, OTHER])
    found.blame(identity(HELD))
    found.blame(identity(message("never held")))
    assert (found.survived(HELD), found.survived(OTHER)) == (Survived(), Survived(held=1))
    found.live_through(QUEUE, [OTHER])
    found.blame(identity(HELD))
    assert found.survived(HELD) == Survived(), "its ack was lost, and nothing held it"


def test_the_messages_that_are_remembered_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "_REMEMBERED", 2)
    found = Suspects()
    found.live_through(QUEUE, [message(str(number)) for number in range(3)])
    assert sum(found.survived(message(str(number))).held for number in range(3)) == 2


def test_a_consumer_that_starts_once_more_has_lived_through_nothing() -> None:
    found = Suspects()
    found.live_through(QUEUE, [HELD])
    found.reset()
    assert found.survived(HELD) == Survived()
