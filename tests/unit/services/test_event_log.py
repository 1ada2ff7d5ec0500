"""What the log says of a failure, and of a thousand of them."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from amqpflow.model import event as e
from amqpflow.services.consuming import log_limit
from amqpflow.services.consuming.event_log import EventLog
from amqpflow.services.consuming.events import Events
from amqpflow.services.consuming.log_limit import LogLimit

ABOUT: dict[str, Any] = {
    "queue": "orders",
    "message_id": "m",
    "correlation_id": "c",
    "attempt": 3,
    "hop": "m/0/2",
    "delivery": 1,
    "duration": 0.1,
}


def raised() -> NameError:
    try:
        gateway  # type: ignore[name-defined]  # noqa: B018
    except NameError as error:
        return error
    raise AssertionError


ERROR: dict[str, Any] = {
    "error_type": "NameError",
    "error_message": "name 'gateway' is not defined",
    "error_location": "service.py:10",
    "error": raised(),
}
NO_ERROR = {"error_type": None}


def retried(**more: Any) -> e.MessageRetried:
    usual = {**ABOUT, "delay": 1.0, "retry_queue": "orders.retry.1s", **ERROR}
    return e.MessageRetried(**{**usual, **more})


def parked(reason: str = "exhausted", **more: Any) -> e.MessageParked:
    return e.MessageParked(**{**ABOUT, "reason": reason, "detail": None, **ERROR, **more})


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (
            retried(),
            "WARNING",
            "retried m: attempt 3 failed: NameError: name 'gateway' is not defined (service.py:10), again in 1s",
        ),
        (
            retried(reason="busy"),
            "WARNING",
            "retried m: attempt 3 failed: busy: NameError: name 'gateway' is not defined (service.py:10), again in 1s",
        ),
        (
            retried(error_message="", error_location=None),
            "WARNING",
            "retried m: attempt 3 failed: NameError, again in 1s",
        ),
        (
            retried(**NO_ERROR, error_message=None, error_location=None, error=None, reason="busy"),
            "INFO",
            "retried m: attempt 3 failed: busy, again in 1s",
        ),
        (
            retried(**NO_ERROR, error_message=None, error_location=None, error=None),
            "INFO",
            "retried m: attempt 3 failed: the handler asked for a retry, again in 1s",
        ),
        (
            retried(error_message="1 validation error\n  total\n    not a number"),
            "WARNING",
            "retried m: attempt 3 failed: NameError: 1 validation error total not a number (service.py:10),"
            " again in 1s",
        ),
        (
            parked(),
            "ERROR",
            "parked m: exhausted after attempt 3: NameError: name 'gateway' is not defined (service.py:10)",
        ),
        (
            parked("permanent", detail="invalid"),
            "ERROR",
            "parked m: permanent: invalid: NameError: name 'gateway' is not defined (service.py:10)",
        ),
        (
            parked(
                "undecodable",
                detail="not JSON",
                error_type="amqpflow.errors.UndecodableError",
                error_message="not JSON",
            ),
            "ERROR",
            "parked m: undecodable: amqpflow.errors.UndecodableError: not JSON (service.py:10)",
        ),
        (
            parked("bad-result", detail="h returned int", **NO_ERROR, error_message=None, error=None),
            "ERROR",
            "parked m: bad-result: h returned int (service.py:10)",
        ),
        (
            parked("parked", detail="sold out", **NO_ERROR, error_message=None, error_location=None, error=None),
            "WARNING",
            "parked m: parked: sold out",
        ),
    ],
)
def test_a_failure_says_what_and_where(caplog: pytest.LogCaptureFixture, event: e.Event, level: str, text: str) -> None:
    caplog.set_level(logging.INFO, "amqpflow.consumer")
    EventLog().write(event)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage(), record.exc_info) == (level, text, None)


def test_a_record_has_the_fields_of_the_error_for_json(caplog: pytest.LogCaptureFixture) -> None:
    EventLog().write(parked("permanent", detail="invalid"))
    (record,) = caplog.records
    said = {name: getattr(record, name) for name in ("error_type", "error_message", "error_location", "detail")}
    assert said == {
        "error_type": "NameError",
        "error_message": "name 'gateway' is not defined",
        "error_location": "service.py:10",
        "detail": "invalid",
    }
    assert not hasattr(record, "error"), "the exception is in exc_info, when it is asked for, and nowhere else"


@pytest.mark.parametrize(("level", "tracebacks"), [("DEBUG", False), ("INFO", True)])
def test_a_record_has_the_exception_at_debug_or_when_it_is_asked_for(
    caplog: pytest.LogCaptureFixture, level: str, tracebacks: bool
) -> None:
    caplog.set_level(level, "amqpflow.consumer")
    events, log = Events(), EventLog()
    log.listen(events, tracebacks=tracebacks)
    for event in (retried(), parked()):
        events.emit(event)
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [ERROR["error"]] * 2
    assert "NameError: name 'gateway' is not defined" in caplog.text
    assert __file__ in caplog.text


def deep() -> BaseException:
    group: Any = ValueError()
    for _ in range(20_000):
        group = ExceptionGroup("", [group])
    return group  # type: ignore[no-any-return]


def test_a_huge_group_is_not_formatted(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    log = EventLog()
    log.listen(Events(), tracebacks=True)
    wide, nested = ExceptionGroup("", [ValueError(number) for number in range(100_000)]), deep()
    log.write(retried(error=wide))
    log.write(retried(error=nested))
    assert len(caplog.text) < 100_000
    assert [bool(record.exc_info) for record in caplog.records] == [True, False]
    assert "Logging error" not in capsys.readouterr().err
    while isinstance(nested, BaseExceptionGroup):  # freed level by level: Python frees it by recursion
        nested = nested.exceptions[0]


# -- a flood


def test_a_flood_of_equal_failures_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "amqpflow.consumer")
    log = EventLog()
    for number in range(1000):
        log.write(retried(message_id=f"m{number}"))
        log.write(retried(message_id=f"other {number}", error_location="service.py:20"))
    assert len(caplog.records) == 40
    log.end()
    assert len(caplog.records) == 42
    *_, first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("orders: 980 more retried within ")
    assert first.endswith(": NameError (service.py:10)")
    assert second.endswith(": NameError (service.py:20)")
    told = caplog.records[-1]
    assert (told.levelname, told.count, told.queue) == ("WARNING", 980, "orders")  # type: ignore[attr-defined]
    log.end()
    assert len(caplog.records) == 42, "it is told once"


def test_a_flood_of_discards_is_counted_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "amqpflow.consumer")
    log = EventLog()
    for _ in range(50):
        log.write(e.MessageDiscarded(**ABOUT, reason="of no use"))
    log.end()
    assert len(caplog.records) == 21
    assert caplog.records[-1].getMessage().startswith("orders: 30 more discarded within ")


def test_what_handlers_decide_for_different_reasons_does_not_stand_for_one_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "amqpflow.consumer")
    log, theirs = EventLog(), {"error_type": None, "error_message": None, "error_location": None, "error": None}
    for _ in range(25):
        log.write(parked("parked", detail="negative total", **theirs))
        log.write(retried(reason="busy", **theirs))
        log.write(e.MessageDiscarded(**ABOUT, reason="of no use"))
    for event in (
        parked("parked", detail="card stolen", **theirs),
        retried(reason="locked", **theirs),
        e.MessageDiscarded(**ABOUT, reason="too old"),
    ):
        log.write(event)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 63
    assert ["card stolen" in said[-3], "locked" in said[-2], "too old" in said[-1]] == [True] * 3
    log.end()
    ends = sorted(record.getMessage().rpartition(": ")[2] for record in caplog.records[63:])
    assert ends == ["busy", "negative total", "of no use"]


@pytest.mark.parametrize("kind", ["discarded", "held"])
def test_reasons_that_name_their_message_are_limited_too(caplog: pytest.LogCaptureFixture, kind: str) -> None:
    caplog.set_level(logging.INFO, "amqpflow.consumer")
    log, about = EventLog(), {name: value for name, value in ABOUT.items() if name != "duration"}
    for number in range(1000):
        if kind == "held":
            log.write(e.MessageHeld(**about, reason=f"m{number} is full"))
        else:
            log.write(e.MessageDiscarded(**ABOUT, reason=f"m{number} is of no use"))
    assert len(caplog.records) == 10 + 20


def test_a_flood_of_held_messages_is_counted_by_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "amqpflow.consumer")
    log, about = EventLog(), {name: value for name, value in ABOUT.items() if name != "duration"}
    for _ in range(1000):
        log.write(e.MessageHeld(**about, reason="cannot park: no queue"))
    log.write(e.MessageHeld(**about, reason="cannot park: no permission"))
    assert len(caplog.records) == 21
    log.end()
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 22
    assert caplog.records[-1].getMessage().startswith("orders: 980 more held within ")
    assert caplog.records[-1].getMessage().endswith(": cannot park: no queue")


def test_at_debug_nothing_of_a_flood_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "amqpflow.consumer")
    log = EventLog()
    for _ in range(100):
        log.write(parked())
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 20 + ["DEBUG"] * 80


def test_what_was_left_out_is_told_when_its_window_ends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_limit, "WINDOW", 0.05)
    # the lines come at one instant, however slow the machine is; the window ends by the event loop's clock
    monkeypatch.setattr(log_limit, "time", SimpleNamespace(monotonic=lambda: 100.0))
    told: list[int] = []

    async def scenario() -> None:
        ended = asyncio.Event()

        def tell(count: int, seconds: float) -> None:
            told.append(count)
            ended.set()

        limit = LogLimit()
        assert [limit.admits("kind", tell) for _ in range(25)] == [True] * 20 + [False] * 5
        await asyncio.wait_for(ended.wait(), 30)
        assert told == [5]
        assert limit.admits("kind", tell), "another window"

    asyncio.run(scenario())


def test_kinds_are_counted_up_to_a_number() -> None:
    limit, told = LogLimit(), list[int]()
    for _ in range(25):
        limit.admits("first", lambda count, _: told.append(count))
    for number in range(1000):
        assert limit.admits(number, lambda count, _: told.append(count))
    assert told == [5], "the oldest makes room, and what it left out is told"


def test_a_listener_that_fails_is_named_with_its_line_and_does_not_flood(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()

    def broken(event: e.Event) -> None:
        raise KeyError(event.name)

    events.subscribe(broken, "message.retried")
    for _ in range(50):
        events.emit(retried())
    events.end()
    first, *_, last = [record.getMessage() for record in caplog.records]
    line = broken.__code__.co_firstlineno + 1
    place = f"(tests/unit/services/test_event_log.py:{line})"
    assert first == f"a listener failed on message.retried: KeyError: 'message.retried' {place}"
    assert last.startswith("a listener failed 30 more times on message.retried within ")
    assert len(caplog.records) == 21
    assert all(record.exc_info for record in caplog.records[:-1])
