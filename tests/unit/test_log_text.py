"""What a message or a broker wrote does nothing on a terminal that shows a log, and forges no line of the log."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from amqpflow.cli.commands.run import configure_logging
from amqpflow.model.event import BreakerOpened, MessageParked
from amqpflow.services.consuming.event_log import EventLog

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2066\r\u2028\x85\x7f"
ACTING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e\u2066-\u2069]")
FORGED = "2026-11-30 12:00:00,000 ERROR   orders: parked everything"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What a run writes to standard error."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging("debug", request.param)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def fails() -> None:
    cause = ValueError(f"{HOSTILE}\n{FORGED}")
    cause.add_note(HOSTILE)
    raise RuntimeError(HOSTILE) from cause


def log_a_failure() -> None:
    try:
        fails()
    except RuntimeError as error:
        logging.getLogger("amqpflow.consumer").error("%s: settling failed", HOSTILE, exc_info=error)


@pytest.mark.parametrize("written", ["text"], indirect=True)
def test_a_traceback_in_a_text_log_is_neutralised(written: io.StringIO) -> None:
    log_a_failure()
    text = written.getvalue()
    assert "RuntimeError: \\x1b]0;owned" in text
    assert "ValueError: " in text
    assert not ACTING.search(text)
    others = text.splitlines()[1:]
    assert others
    assert all(line.startswith("    ") for line in others), "a line of a traceback cannot be taken for one of the log"
    assert FORGED in text


@pytest.mark.parametrize("written", ["text"], indirect=True)
def test_a_traceback_that_another_handler_formatted_first_is_neutralised_too(written: io.StringIO) -> None:
    theirs = logging.StreamHandler(io.StringIO())
    logging.getLogger("amqpflow.consumer").addHandler(theirs)
    try:
        log_a_failure()
    finally:
        logging.getLogger("amqpflow.consumer").removeHandler(theirs)
    assert not ACTING.search(written.getvalue())


@pytest.mark.parametrize("written", ["json"], indirect=True)
def test_a_traceback_in_a_json_log_is_one_line_of_printable_ascii(written: io.StringIO) -> None:
    log_a_failure()
    (line,) = written.getvalue().splitlines()
    assert line.isascii()
    assert line.isprintable()
    entry = json.loads(line)
    assert HOSTILE in entry["event"]
    assert f"ValueError: {HOSTILE}\n{FORGED}" in entry["exception"]


def test_the_text_of_an_event_is_neutralised_for_any_handler(caplog: pytest.LogCaptureFixture) -> None:
    settled = MessageParked(
        queue=HOSTILE,
        message_id=HOSTILE,
        correlation_id=None,
        attempt=1,
        hop="",
        delivery=1,
        duration=0.1,
        reason="exhausted",
        detail=HOSTILE,
        error_type=HOSTILE,
        error_message=HOSTILE,
        error_location=HOSTILE,
    )
    with caplog.at_level(logging.DEBUG, logger="amqpflow.consumer"):
        log = EventLog()
        log.write(settled)
        log.write(BreakerOpened(queue=HOSTILE, reason=HOSTILE, open_for=1.0))
    for record in caplog.records:
        assert "owned" in record.getMessage()
        assert not ACTING.search(record.getMessage())
    assert caplog.records[0].message_id == HOSTILE, "fields are as they came"
