"""What becomes of publishes: told once for each, and a returned one is never told as confirmed."""

from __future__ import annotations

from typing import Any

import pytest

from amqpflow.errors import (
    AmqpflowError,
    BrokerUnavailableError,
    PublishRefusedError,
    PublishUncertainError,
    UnroutableError,
)
from amqpflow.model.headers import HOP
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.wire import encode_content_header
from amqpflow.rabbitmq.confirms import Confirms, Ticket


class Publishing:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.told: dict[str, Any] = {}
        self.confirms = Confirms(3, 0, self.written.append)

    def post(
        self,
        name: str,
        *,
        same: str | None = None,
        key: str = "k",
        hop: str | None = None,
        exchange: str = "e",
        ticket: Ticket | None = None,
    ) -> None:
        properties = Properties(message_id=same or name, headers={HOP: hop} if hop else None)

        def settled(error: AmqpflowError | None) -> None:
            assert name not in self.told, "told twice"
            self.told[name] = type(error)

        message = Publish.of(exchange=exchange, routing_key=key, properties=properties, body=b"")
        self.confirms.post(message, settled, ticket)

    def returned(self, same: str, key: str = "k") -> None:
        header = encode_content_header(Properties(message_id=same), 0)
        self.confirms.returned("NO_ROUTE", "e", key, header)


OK = type(None)


def test_a_confirm_is_for_one_or_for_all_up_to_it() -> None:
    at = Publishing()
    for name in "abcdef":
        at.post(name)
    at.confirms.confirmed(2, False, True)
    assert at.told == {"b": OK}
    at.confirms.confirmed(4, True, True)
    assert at.told == dict.fromkeys("bacd", OK)
    at.confirms.confirmed(5, False, False)
    assert at.told["e"] is PublishRefusedError
    assert len(at.confirms) == 1
    at.confirms.confirmed(0, True, True)  # 0 means all
    assert at.told["f"] is OK


def test_a_return_is_matched_by_address_and_id() -> None:
    at = Publishing()
    at.post("here", same="same", key="here")
    at.post("nowhere", same="same", key="nowhere")
    at.returned("same", key="nowhere")
    at.confirms.confirmed(2, True, True)
    assert at.told == {"here": OK, "nowhere": UnroutableError}


def test_two_that_are_alike_are_never_in_flight_together() -> None:
    at = Publishing()
    for name in ("first", "second", "third"):
        at.post(name, same="same")
    at.post("other")
    assert (len(at.written), len(at.confirms)) == (2, 4), "whoever keeps a window counts those that wait, too"
    at.returned("same")
    at.confirms.confirmed(1, False, True)
    assert at.told == {"first": UnroutableError}
    assert (len(at.written), len(at.confirms)) == (3, 3)
    at.confirms.confirmed(3, True, True)  # "other" and "second", which went out third
    assert at.told == {"first": UnroutableError, "other": OK, "second": OK}
    at.confirms.written()
    at.confirms.end(lambda *_: PublishUncertainError("lost"))
    assert at.told["third"] is PublishUncertainError
    assert len(at.confirms) == 0


def test_two_settlements_of_one_message_differ_in_their_hop() -> None:
    at = Publishing()
    at.post("first", same="same", hop="same/0/1")
    at.post("second", same="same", hop="same/0/2")
    assert len(at.written) == 2


def test_a_return_that_cannot_be_read_may_be_any_for_that_address() -> None:
    at = Publishing()
    at.post("here", key="here")
    at.post("nowhere", key="nowhere")
    at.confirms.returned("NO_ROUTE", "e", "nowhere", b"")
    at.confirms.confirmed(2, True, True)
    assert at.told == {"here": OK, "nowhere": UnroutableError}


def test_what_a_socket_has_taken_is_uncertain_at_the_end_and_all_else_was_not_sent() -> None:
    at = Publishing()
    at.post("sent", same="same")
    at.post("waited", same="same")
    at.confirms.written()
    at.post("kept")
    at.confirms.end(lambda *_: PublishUncertainError("lost"))
    assert at.told == {"sent": PublishUncertainError, "kept": BrokerUnavailableError, "waited": BrokerUnavailableError}
    assert len(at.confirms) == 0


def test_what_waits_for_its_like_and_is_withdrawn_is_not_sent() -> None:
    at, tickets = Publishing(), [Ticket(), Ticket(), Ticket()]
    for name, ticket in zip(("first", "second", "third"), tickets, strict=True):
        at.post(name, same="same", ticket=ticket)
    tickets[1].withdrawn = True
    at.confirms.confirmed(1, False, True)
    assert at.told == {"first": OK, "second": BrokerUnavailableError}
    assert ([each.written for each in tickets], len(at.written)) == ([True, False, True], 2)
    at.confirms.confirmed(2, False, True)
    assert (at.told["third"], len(at.confirms)) == (OK, 0)


def test_at_the_end_it_is_said_which_may_have_been_taken_before_their_exchange_closed_the_channel() -> None:
    at, said = Publishing(), dict[str, bool]()
    at.post("taken", exchange="used")
    at.confirms.confirmed(1, False, True)
    for name, exchange in {"a": "used", "b": "used", "c": "fresh", "d": "fresh"}.items():
        at.post(name, exchange=exchange)
    at.confirms.written()

    def error(exchange: str, may_be_there: bool) -> PublishUncertainError:
        said[exchange] = may_be_there
        return PublishUncertainError("closed")

    at.confirms.end(error)
    assert said == {"used": True, "fresh": False}


def test_a_message_without_identity_is_not_sent() -> None:
    at = Publishing()
    with pytest.raises(ValueError, match="message id"):
        at.confirms.post(Publish.of(exchange="e", routing_key="k", properties=Properties(), body=b""), lambda _: None)
    assert (at.written, len(at.confirms)) == ([], 0)


def test_who_is_told_may_publish_and_may_fail() -> None:
    at = Publishing()
    message = Publish.of(exchange="e", routing_key="k", properties=Properties(message_id="a"), body=b"")

    def again(_: AmqpflowError | None) -> None:
        at.post("again", same="a")
        raise RuntimeError("told badly")

    at.confirms.post(message, again)
    at.post("next")
    at.confirms.confirmed(2, True, True)
    assert at.told == {"next": OK}
    assert len(at.written) == 3
