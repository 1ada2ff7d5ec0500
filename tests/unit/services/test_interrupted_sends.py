"""What journals of interrupted replays prove of a parked message, and how often."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amqpflow.model import headers as h
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties
from amqpflow.parking.journal import OLD_VERSION, PARKED_DIGITS, JournalState
from amqpflow.parking.parked import ParkedMessage, read_parked
from amqpflow.services.replaying.interrupted_sends import InterruptedReplay, InterruptedSend, InterruptedSends
from amqpflow.services.replaying.journal_file import JournalFile
from tests.parked import delivered, parking_publish
from tests.topologies import topology
from tests.unit.parking.test_journal import HEAD, KEYS

COMPILED = topology({"orders": [1000]}, vhost="/")
NAME = KEYS[0][1]
OURS = JournalFile(Path("one.replay"), -1)  #: nothing is written to it here


def parked(**changes: Any) -> ParkedMessage:
    """As a consumer parked it, delivered for the second time."""
    publish = parking_publish(COMPILED, delivered("orders", message_id="m0"))
    delivery = Delivery(
        queue="orders.parking",
        delivery_tag=1,
        redelivered=True,
        exchange=COMPILED.parking_exchange,
        routing_key="orders.parking",
        header=ContentHeader(publish.header),
        body=publish.body,
    )
    return read_parked(replace(delivery, **changes), COMPILED.routes)


def with_headers(*, message_id: str | None = "m0", **headers: Any) -> ParkedMessage:
    before = parked().delivery.properties.headers or {}
    wanted = {name: value for name, value in {**before, **headers}.items() if value is not None}
    return parked(header=ContentHeader.of(Properties(message_id=message_id, headers=wanted)))


def sends(*states: InterruptedReplay) -> InterruptedSends:
    found = InterruptedSends(COMPILED)
    for each in states:
        found.add(each)
    found.begin_reading()
    return found


def interrupted(name: str = "one", *, is_believed: bool = True, **numbers: Any) -> InterruptedReplay:
    state = JournalState(head=replace(HEAD, id=name), **numbers)
    return InterruptedReplay(state=state, file=OURS, is_believed=is_believed)


def test_a_confirm_that_was_not_acked_proves_that_a_message_was_sent() -> None:
    known = sends(interrupted(unacked={1: KEYS[0]}))
    sent = known.take(NAME)
    assert sent is not None
    assert known.proves(sent, parked())


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (parked(redelivered=False), "no replay has ever had it"),
        (parked(exchange=""), "a restore, or RabbitMQ itself, put it there"),
        (parked(exchange="elsewhere"), "not a consumer of this topology"),
        (with_headers(**{h.FAILED_AT: None}), "nothing dates it"),
        (with_headers(message_id=None, **{h.HOP: None}), "it has no identity"),
        (with_headers(**{h.QUEUE: None}), "it has no record"),
        (
            with_headers(**{"x-death": [{"queue": "orders", "reason": "rejected", "count": 1, "exchange": "e"}]}),
            "RabbitMQ parked it",
        ),
    ],
)
def test_of_other_messages_nothing_is_proven(message: ParkedMessage, why: str) -> None:
    known = sends(interrupted(unacked={1: KEYS[0]}))
    sent = known.take(NAME)
    assert sent is not None
    assert not known.proves(sent, message), why


@pytest.mark.parametrize(
    "state",
    [
        interrupted(leaving={1: KEYS[0]}),
        interrupted(in_doubt={1: KEYS[0]}),
        interrupted(unacked={1: KEYS[0]}, is_believed=False),
    ],
)
def test_what_may_be_gone_or_is_not_believed_proves_nothing(state: InterruptedReplay) -> None:
    known = sends(state)
    sent = known.take(NAME)
    assert sent is not None
    assert not known.proves(sent, parked())


def taken(known: InterruptedSends) -> list[InterruptedSend]:
    return [sent for sent in iter(lambda: known.take(NAME), None) if sent is not None]


def test_each_is_met_once_in_a_reading_and_proofs_come_first() -> None:
    known = sends(
        interrupted("one", in_doubt={1: KEYS[0]}, unacked={2: KEYS[0], 3: KEYS[1]}),
        interrupted("two", leaving={1: KEYS[0]}, unacked={2: KEYS[0]}),
    )
    assert [sent.is_unacked for sent in taken(known)] == [True, True, False, False]
    assert known.take(NAME) is None
    known.begin_reading()
    assert len(taken(known)) == 4


def test_what_went_another_way_is_met_last_and_proves_nothing() -> None:
    hop, name = KEYS[0]
    other_way = (hop, name[:PARKED_DIGITS] + "f" * 16)
    another_message = (hop, "f" * PARKED_DIGITS + name[PARKED_DIGITS:])
    known = sends(interrupted(unacked={1: other_way, 2: (hop, name), 3: another_message}, in_doubt={4: other_way}))
    assert [(sent.number, sent.is_unacked) for sent in taken(known)] == [(2, True), (1, False), (4, False)]


def test_what_was_used_is_in_no_later_reading_a_proof_and_the_journal_says_so() -> None:
    one = interrupted("one", unacked={1: KEYS[0], 2: KEYS[0]})
    known = sends(one)
    first = known.take(NAME)
    assert first is not None
    known.use([first])
    assert one.lines == [b'{"acking":[[1,1]]}\n'] or one.lines == [b'{"acking":[[2,2]]}\n']
    known.begin_reading()
    assert [sent.is_unacked for sent in taken(known)] == [True, False]
    known.not_acked([first])
    assert one.lines[-1] == one.lines[0].replace(b"acking", b"confirmed")
    known.begin_reading()
    assert [sent.is_unacked for sent in taken(known)] == [True, True]
    known.use([first])
    known.acked([first])
    known.prove()
    known.begin_reading()
    assert [sent.is_unacked for sent in taken(known)] == [True]


def test_what_is_sent_again_is_no_proof_either_for_a_replay_that_would_have_believed_it() -> None:
    elsewhere = interrupted(unacked={1: KEYS[0]}, is_believed=False)
    known = sends(elsewhere)
    sent = known.take(NAME)
    assert sent is not None
    known.use([sent])
    assert elsewhere.lines == [b'{"acking":[[1,1]]}\n']


def test_what_is_passed_over_keeps_its_journal_open() -> None:
    one, two = interrupted("one", leaving={1: KEYS[0]}), interrupted("two", leaving={1: KEYS[1]})
    known = sends(one, two)
    known.pass_over(NAME[:32])
    assert (one.passed_over, two.passed_over) == (True, False)


def test_a_journal_of_the_old_version_is_known_by_hops_alone() -> None:
    state = JournalState(head=replace(HEAD, version=OLD_VERSION), leaving={1: ("m0/1/0", "aa")}, unacked={2: KEYS[0]})
    known = sends(InterruptedReplay(state=state, file=None, is_believed=True))
    assert known
    assert known.take(NAME) is None
    assert known.was_sent_of_old(lambda: "m0/1/0")
    assert not known.was_sent_of_old(lambda: "m1/1/0")
    assert not sends().was_sent_of_old(lambda: "m0/1/0")


def test_ordinals_of_copies_that_may_have_been_sent() -> None:
    keys = [(f"abc{suffix}/1/0", NAME) for suffix in ("", "-2", "-1")]
    known = sends(interrupted(in_doubt=dict(enumerate(keys, 1)), leaving={4: ("abc-7/1/0", NAME)}))
    assert known.ordinals(NAME[:32]) == ([0, 1, 2], 8)
    assert known.ordinals("0" * 31 + "9") == ([], 0)
