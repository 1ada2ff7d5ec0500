"""What a program publishes is checked whole before it is sent: every wrong argument has a text that names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqpflow.cli.options import replay as replay_options
from amqpflow.errors import UsageError
from amqpflow.model import headers as h
from amqpflow.model.outgoing import MAX_EXPIRATION, OutgoingMessage, encode_outgoing, header_problems
from amqpflow.model.wire import MAX_DEPTH
from amqpflow.services.replaying.request import ReplayRequest

NESTED_TO_THE_LIMIT: Any = 1
for _ in range(MAX_DEPTH - 1):
    NESTED_TO_THE_LIMIT = {"k": NESTED_TO_THE_LIMIT}
ENDLESS: list[Any] = []
ENDLESS.extend([ENDLESS, ENDLESS])


class Odd(Mapping[str, Any]):
    """A mapping that cannot be read."""

    def __getitem__(self, name: str) -> Any:
        raise RuntimeError("no")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 1


class Level(IntEnum):
    HIGH = 9


class Word(StrEnum):
    RUSH = "rush"


HEADERS = [
    ({1: "x"}, "headers has a name that is of type int, not text"),
    ({None: "x"}, "headers has a name that is None, not text"),
    ({b"k": "x"}, "headers has a name that is of type bytes, not text"),
    ({"n" * 256: 1}, f"the name {'n' * 40 + '...'!r} in headers is 256 bytes long, AMQP allows 255"),
    ({"ä" * 128: 1}, "is 256 bytes long"),
    ({"\ud800": 1}, "the name '\\ud800' in headers has a lone surrogate, which is not text"),
    ({"k": "\ud800"}, "headers['k'] has a lone surrogate, which is not text"),
    ({"load": float("nan")}, "headers['load'] is nan, over which RabbitMQ closes the connection"),
    ({"load": float("-inf")}, "headers['load'] is -inf, over which"),
    ({"a": [{"b": float("inf")}]}, "headers['a'][0]['b'] is inf, over which"),
    ({"trace": 1 << 63}, "headers['trace'] is 9223372036854775808, and RabbitMQ holds integers from -2^63 to 2^63 - 1"),
    ({"trace": -(1 << 63) - 1}, "RabbitMQ holds integers"),
    ({"trace": 1 << 20_000}, "headers['trace'] is an integer of more than 64 bits"),
    ({"a": {"b": [1, 1 << 63]}}, "headers['a']['b'][1] is 9223372036854775808"),
    ({"k": object()}, "headers['k'] is of type object, for which AMQP has no type"),
    ({"k": {1, 2}}, "headers['k'] is of type set"),
    ({"k": UUID(int=1)}, "headers['k'] is of type UUID"),
    ({"k": 1j}, "headers['k'] is of type complex"),
    ({"k": date(2026, 1, 1)}, "headers['k'] is of type date"),
    ({"k": {2: 3}}, "headers['k'] has a name that is of type int"),
    ({"k": datetime(2026, 1, 1)}, "headers['k'] is a datetime without a time zone"),  # noqa: DTZ001
    ({"k": datetime(1969, 1, 1, tzinfo=UTC)}, "headers['k'] is before 1970"),
    ({"k": datetime.max.replace(tzinfo=timezone(-timedelta(hours=2)))}, "headers['k'] is before 1970 or after 9999"),
    ({"k": Decimal("NaN")}, "headers['k']: NaN is not a number"),
    ({"k": Decimal(1 << 31)}, "headers['k']: the decimal 2147483648 does not fit"),
    ({"k": {"k": NESTED_TO_THE_LIMIT}}, f"is nested more than {MAX_DEPTH} deep"),
    ({"k": ENDLESS}, f"is nested more than {MAX_DEPTH} deep"),
    ({"k": Odd()}, "headers['k'] cannot be read: RuntimeError('no')"),
    (Odd(), "headers cannot be read: RuntimeError('no')"),
    ([("a", 1)], "headers is of type list, not a mapping"),
    ([], "headers is of type list, not a mapping"),
    ("a=1", "headers is of type str, not a mapping"),
    ({"CC": "orders"}, "headers['CC'] is not a list of routing keys"),
    ({"BCC": [7]}, "headers['BCC'] is not a list of routing keys"),
]
ARGUMENTS = [
    ({"body": "text"}, "body is of type str, not bytes; encode it first"),
    ({"body": None}, "body is None, not bytes"),
    ({"body": memoryview(b"x")}, "body is of type memoryview, not bytes"),
    ({"routing_key": None}, "routing_key is None, not text"),
    ({"routing_key": 5}, "routing_key is of type int, not text"),
    ({"routing_key": ["q"]}, "routing_key is of type list, not text"),
    ({"routing_key": "k" * 256}, "routing_key is 256 bytes long, AMQP allows 255"),
    ({"exchange": None}, "exchange is None, not text"),
    ({"exchange": b"events"}, "exchange is of type bytes, not text"),
    ({"message_id": 7}, "message_id is of type int, not text"),
    ({"correlation_id": UUID(int=1)}, "correlation_id is of type UUID, not text"),
    ({"content_type": b"text/plain"}, "content_type is of type bytes, not text"),
    ({"content_encoding": 1}, "content_encoding is of type int, not text"),
    ({"reply_to": "ä" * 128}, "reply_to is 256 bytes long"),
    ({"type": "\udfff"}, "type has a lone surrogate"),
    ({"app_id": 1}, "app_id is of type int"),
    ({"priority": 256}, "priority is 256, not from 0 to 255"),
    ({"priority": -1}, "priority is -1, not from 0 to 255"),
    ({"priority": "high"}, "priority is of type str, not an integer from 0 to 255"),
    ({"priority": True}, "priority is of type bool, not an integer"),
    ({"priority": 1.0}, "priority is of type float, not an integer"),
    ({"expiration": -1}, "expiration is -1, not from 0 to 315360000000 (milliseconds)"),
    ({"expiration": MAX_EXPIRATION + 1}, "expiration is 315360000001, not from 0"),
    ({"expiration": "60000"}, "expiration is of type str, not an integer"),
    ({"expiration": 1.5}, "expiration is of type float, not an integer"),
    ({"expiration": timedelta(1)}, "expiration is of type timedelta, not an integer"),
    ({"timestamp": datetime(2026, 1, 1)}, "timestamp is a datetime without a time zone"),  # noqa: DTZ001
    ({"timestamp": datetime(1969, 1, 1, tzinfo=UTC)}, "timestamp is before 1970"),
    ({"timestamp": -1}, "timestamp is -1, not from 0"),
    ({"timestamp": 1.5}, "timestamp is of type float"),
    ({"timestamp": "now"}, "timestamp is of type str, not an integer from 0 to 18446744073709551615 (seconds), or a"),
]


def encode(**arguments: Any) -> Any:
    return encode_outgoing(OutgoingMessage(**{"body": b"b", "routing_key": "q"} | arguments), "id")


@pytest.mark.parametrize(
    ("arguments", "said"), [*ARGUMENTS, *(({"headers": headers}, said) for headers, said in HEADERS)]
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z]") as refused:
        encode(**arguments)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 2000


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ValueError, match="body is") as refused:
        encode(body="x", priority=-1, headers={"a": float("nan"), 7: 1}, expiration=-1)
    for said in ("body is", "priority is", "headers['a'] is nan", "headers has a name", "expiration is"):
        assert said in str(refused.value)
    with pytest.raises(ValueError, match=r"and more$") as refused:
        encode(headers={f"n{each}": float("nan") for each in range(1000)})
    assert str(refused.value).count("is nan") == 10


@pytest.mark.parametrize("wrong", [None, "text", {"body": b"x"}, 7, b"x", OutgoingMessage])
def test_what_is_no_message_is_said_to_be_none(wrong: Any) -> None:
    with pytest.raises(ValueError, match="not an OutgoingMessage"):
        encode_outgoing(wrong, "id")


def test_the_limits_themselves_are_sent() -> None:
    berlin = timezone(timedelta(hours=2))
    given = {
        "integers": [(1 << 63) - 1, -(1 << 63), 0, Level.HIGH],
        "floats": [1.7976931348623157e308, 5e-324, -0.0],
        "texts": ["", "ä", Word.RUSH, "caf\udce9"],
        "none": None,
        "flags": (True, False),
        "bytes": [b"\xff", bytearray(b"x")],
        "time": datetime(2026, 1, 1, tzinfo=berlin),
        "price": Decimal("-0.10"),
        "nested": NESTED_TO_THE_LIMIT["k"],
        "CC": ["a", b"b"],
        "n" * 255: 1,
        "": 1,
    }
    publish = encode(
        headers=given,
        priority=Level.HIGH,
        expiration=MAX_EXPIRATION,
        timestamp=(1 << 64) - 1,
        routing_key="k" * 255,
        correlation_id="caf\udce9",
        body=bytearray(b"b"),
    )
    properties = publish.properties
    assert set(properties.headers) == set(given)
    assert properties.headers["integers"] == [(1 << 63) - 1, -(1 << 63), 0, 9]
    assert properties.headers["time"] == datetime(2025, 12, 31, 22, tzinfo=UTC)
    assert (properties.priority, properties.expiration) == (9, "315360000000")
    assert (properties.timestamp, properties.correlation_id) == ((1 << 64) - 1, "caf\udce9")
    assert type(publish.body) is bytes


def test_headers_of_ours_and_of_the_broker_are_removed_whatever_they_hold() -> None:
    forged = {h.ATTEMPT: object(), "x-death": float("nan"), "x-delivery-count": 1 << 80, "theirs": 1}
    assert encode(headers=forged).properties.headers == {"theirs": 1}


VALUES = st.recursive(st.floats() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4)


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=3))
def test_whatever_is_not_refused_can_be_encoded(headers: dict[str, Any]) -> None:
    if not list(header_problems(headers)):
        encode(headers=headers)


@pytest.mark.parametrize(("headers", "said"), [each for each in HEADERS if "CC'] is not" not in each[1]])
def test_headers_that_a_replay_sets_are_checked_alike(headers: Any, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        ReplayRequest(set_headers=headers)
    assert said.replace("headers", "set_headers", 1) in str(refused.value)


def test_a_header_that_a_replay_drops_may_be_no_utf8_and_must_be_text() -> None:
    assert ReplayRequest(drop_headers=frozenset({"caf\udce9"})).drop_headers
    with pytest.raises(UsageError, match=r"the name 'n+\.\.\.' in drop_headers is 256 bytes long"):
        ReplayRequest(drop_headers=frozenset({"n" * 256}))
    with pytest.raises(UsageError, match="drop_headers has a name that is of type int"):
        ReplayRequest(drop_headers=frozenset({7}))  # type: ignore[arg-type]


def test_a_header_of_the_command_line_is_named_by_its_option() -> None:
    assert replay_options._header("name=a=b") == ("name", "a=b")
    assert replay_options._header("caf\udce9=\udce9") == ("caf\udce9", "\udce9")
    with pytest.raises(click.UsageError, match=r"^the name 'n+\.\.\.' in --set-header is 256 bytes long"):
        replay_options._header("n" * 256 + "=1")
