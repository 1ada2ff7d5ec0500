"""What waits to be replayed: its order, and that one message waits for its like while others pass."""

from __future__ import annotations

import pytest

from amqpflow.parking.parked import ParkedMessage, read_parked
from amqpflow.services.replaying.waiting_messages import WaitingMessages
from tests.parked import delivered

SAME = ("exchange", "key", "hop")
OTHER = ("exchange", "other key", "hop")


def message(name: str) -> ParkedMessage:
    return read_parked(delivered("orders", message_id=name, body=b"123"), {})


def names(waiting: WaitingMessages) -> list[str | None]:
    taken = []
    while (entry := waiting.take()) is not None:
        taken.append(entry[0].message_id)
    return taken


def test_messages_are_taken_in_the_order_of_their_arrival() -> None:
    waiting = WaitingMessages()
    for at, name in enumerate("abc"):
        waiting.add(message(name), float(at))
    size = message("a").delivery.size  # of the properties too: many headers take more memory than a small body
    assert size > 3
    assert (waiting.ready, waiting.size, waiting.since) == (3, 3 * size, 0.0)
    assert names(waiting) == ["a", "b", "c"]
    assert (bool(waiting), waiting.size) == (False, 0)


def test_what_is_set_aside_counts_as_waiting_and_is_released_one_by_one_ahead_of_the_others() -> None:
    waiting = WaitingMessages()
    waiting.set_aside(SAME, message("first"), 1.0)
    waiting.set_aside(SAME, message("second"), 2.0)
    waiting.set_aside(OTHER, message("third"), 3.0)
    waiting.add(message("behind"), 4.0)
    size = sum(message(name).delivery.size for name in ("first", "second", "third", "behind"))
    assert (waiting.ready, waiting.size, waiting.since) == (1, size, 1.0)
    waiting.release(lambda same: same == SAME)
    assert waiting.since == 1.0
    assert names(waiting) == ["first", "behind"]
    assert (bool(waiting), waiting.ready, waiting.since) == (True, 0, 2.0)
    waiting.release(lambda _: True)
    assert names(waiting) == ["second", "third"]
    assert not waiting


def test_of_nothing_that_waits_there_is_no_oldest() -> None:
    with pytest.raises(ValueError, match="empty"):
        _ = WaitingMessages().since
