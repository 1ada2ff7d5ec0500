"""Who is told of what, and what a listener cannot disturb."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import fields
from typing import Any

import pytest

import amqpflow
from amqpflow import Consumer, InvalidHandlerError, Topology
from amqpflow.model import event as e
from amqpflow.services.consuming.event_log import EventLog
from amqpflow.services.consuming.events import Events
from amqpflow.services.consuming.telemetry import Totals
from tests.topologies import topology

RESUMED = e.ConsumerResumed(queue="orders")
PAUSED = e.ConsumerPaused(queue="orders", reason="no room")


def test_a_listener_hears_what_it_asked_for() -> None:
    events, heard = Events(), list[e.Event]()
    events.subscribe(heard.append, "consumer.paused")
    events.emit(RESUMED)
    events.emit(PAUSED)
    assert heard == [PAUSED]
    assert e.ConsumerPaused in events.listeners
    assert e.ConsumerResumed not in events.listeners


def test_a_class_stands_for_all_below_it_and_nothing_for_everything() -> None:
    events, consumers, everything = Events(), list[e.Event](), list[e.Event]()
    events.subscribe(consumers.append, e.ConsumerEvent)
    events.subscribe(everything.append)
    lost = e.ConnectionLost(address="amqp://here", purpose="consumer", reason="reset")
    for each in (PAUSED, lost):
        events.emit(each)
    assert consumers == [PAUSED]
    assert everything == [PAUSED, lost]
    assert all(kind in events.listeners for kind in e.EVENTS.values())


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, GeneratorExit, SystemExit])
def test_a_listener_that_raises_is_logged_and_the_next_one_hears(
    caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    events, heard = Events(), list[e.Event]()

    def broken(event: e.Event) -> None:
        raise error("no")

    events.subscribe(broken, "consumer.paused")
    events.subscribe(heard.append, "consumer.paused")
    events.emit(PAUSED)
    assert heard == [PAUSED]
    assert "a listener failed on consumer.paused" in caplog.text


def test_a_subscription_ends() -> None:
    events, heard = Events(), list[e.Event]()
    end = events.subscribe(heard.append, "consumer.paused", "consumer.resumed")
    end()
    end()
    events.emit(PAUSED)
    assert heard == []
    assert e.ConsumerPaused not in events.listeners


async def asynchronous(event: e.Event) -> None: ...


class Asynchronous:
    async def __call__(self, event: e.Event) -> None: ...


@pytest.mark.parametrize(
    ("listener", "events", "what"),
    [
        (print, ("message.park",), "there is no event 'message.park'"),
        (print, (int,), "neither the name of an event nor its class"),
        (asynchronous, (), "is async"),
        (Asynchronous(), (), "is async"),
        (lambda: None, (), "cannot be called with one event"),
        ("parked", (), "cannot be called"),
    ],
)
def test_what_cannot_be_subscribed_is_refused(listener: Any, events: Any, what: str) -> None:
    with pytest.raises(InvalidHandlerError, match=what):
        Events().subscribe(listener, *events)


def test_old_names_of_the_requeued_event_work_and_warn() -> None:
    consumer = Consumer(Topology(compiled=topology({"orders": ()}, vhost="v")), "amqp://localhost")
    for subscribe in (consumer.subscribe, lambda listener, *events: consumer.on(*events)(listener)):
        with pytest.warns(DeprecationWarning, match="message.given_back is now message.requeued") as warned:
            subscribe(print, "message.given_back")
        assert {each.filename for each in warned} == {__file__}
    assert e.MessageRequeued in consumer._events.listeners
    with pytest.warns(DeprecationWarning, match="MessageGivenBack is now amqpflow.MessageRequeued"):
        assert amqpflow.MessageGivenBack is e.MessageRequeued


def test_the_old_name_of_the_requeued_total_works_and_warns() -> None:
    totals = Totals()
    with pytest.warns(DeprecationWarning, match="given-back is now requeued"):
        assert (totals["given-back"], totals.get("given-back"), "given-back" in totals) == (0, None, False)
    totals["requeued"] += 1
    with pytest.warns(DeprecationWarning, match="given-back"):
        assert (totals["given-back"], totals.get("given-back"), "given-back" in totals) == (1, 1, True)
    assert (totals["acked"], totals.get("acked", 7), totals == Counter(requeued=1)) == (0, 7, True)


def test_the_nearest_name_is_proposed() -> None:
    with pytest.raises(InvalidHandlerError) as refused:
        Events().subscribe(print, "message.park")
    assert refused.value.hint == "did you mean message.parked?"


def test_no_event_bears_a_body_or_headers() -> None:
    for kind in e.EVENTS.values():
        names = {field.name for field in fields(kind)}
        assert not names & {"body", "headers", "properties", "message"}, kind


def test_the_log_says_what_happened_with_fields_beside_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "amqpflow.consumer")
    events = Events()
    EventLog().listen(events)
    about: dict[str, Any] = {"queue": "orders", "message_id": "m", "correlation_id": "c", "attempt": 1, "hop": "m/0/0"}
    events.emit(e.MessageAcked(**about, delivery=1, duration=0.1))
    retried = e.MessageRetried(
        **about, delivery=2, duration=0.1, delay=5.0, retry_queue="orders.retry.5s", error_type="ValueError"
    )
    events.emit(retried)
    (record,) = caplog.records
    assert record.getMessage() == "retried m: attempt 1 failed: ValueError, again in 5s"
    said = {name: getattr(record, name) for name in ("event_name", "outcome", "error_type", "delay", *about)}
    wanted = {"event_name": "message.retried", "outcome": "retried", "error_type": "ValueError", "delay": 5.0, **about}
    assert said == wanted


def test_every_event_has_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "amqpflow.consumer")
    events = Events()
    EventLog().listen(events)
    for kind in e.EVENTS.values():
        given = {
            field.name: 1.5 if field.type == "float" else "some" for field in fields(kind) if field.name != "error"
        }
        events.emit(kind(**given))
    for record in caplog.records:
        assert record.getMessage() != getattr(record, "event_name", None), "no sentence"
    silent = {"message.received", "message.handled"}
    assert {getattr(record, "event_name", None) for record in caplog.records} == e.EVENTS.keys() - silent
