"""Headers are written by others: whatever they hold, a parked message can be read, shown and replayed."""

from __future__ import annotations

import json
import struct
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.cli.render.parked_json import message_object
from amqpflow.model import headers as h
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.headers import BROKER_OWNED, COUNTERS, NEVER_TRAVELS, PREFIX
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties
from amqpflow.model.wire import encode_table, length_prefixed
from amqpflow.parking.export import message_line
from amqpflow.parking.groups import GROUPS_AT_MOST, OTHERS, count_group
from amqpflow.parking.parked import read_parked
from amqpflow.parking.replay import ReplayContext, replay_publish
from amqpflow.services.parked.listing import row_of
from amqpflow.services.replaying.plan import group_of
from tests.messages import nested, not_utf8
from tests.topologies import topology

TOPOLOGY = topology({"a": [1000], "b": [1000]}, vhost="/", parking="shared.parking")
RUN = ReplayContext(
    id="r", at=1, host="h", version="v", frame_max=131_072, our_queues=frozenset(TOPOLOGY.desired.queues)
)

OURS = [
    value for name, value in vars(h).items() if isinstance(value, str) and value.startswith(PREFIX) and value != PREFIX
]
NAMES = st.sampled_from([*OURS, *sorted(BROKER_OWNED), *sorted(COUNTERS), "CC", "BCC", "their"])
TEXTS = st.sampled_from(
    ["a", "b", "a.parking", "m/0/1", "/", "x/y/z", "", "\x1b[2J", "\u202e", "delivery_limit"]
) | st.text(max_size=20)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats()
    | TEXTS
    | not_utf8  # what is UTF-8 arrives as text
    | st.binary(max_size=10).map(bytearray)
    | st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-1000, max_value=1000, places=2)
)
KEYS = st.sampled_from(
    [
        "queue",
        "reason",
        "time",
        "count",
        "exchange",
        "routing-keys",
        "at",
        "tier",
        "error-type",
        "id",
        "expiration",
        "user_id",
        "original-expiration",
        "x",
    ]
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)
HEADERS = st.none() | st.dictionaries(NAMES | st.text(min_size=1, max_size=10), VALUES, max_size=12)


def from_parking(headers: dict[str, Any] | None, message_id: str | None, body: bytes) -> Delivery:
    return Delivery(
        queue="shared.parking",
        delivery_tag=1,
        redelivered=False,
        exchange="",
        routing_key="shared.parking",
        header=ContentHeader.of(Properties(headers=headers, message_id=message_id)),
        body=body,
    )


@given(headers=HEADERS, message_id=st.none() | TEXTS, body=st.binary(max_size=20))
def test_reading_and_replaying_never_raise(headers: dict[str, Any] | None, message_id: str | None, body: bytes) -> None:
    delivery = from_parking(headers, message_id, body)
    parked = read_parked(delivery, TOPOLOGY.routes)
    assert parked.reason in {*(reason.value for reason in h.ParkReason), "foreign", "unknown"}
    assert parked.id == read_parked(delivery, TOPOLOGY.routes).id
    if parked.queue in TOPOLOGY.routes:
        publish = replay_publish(parked, TOPOLOGY.routes[parked.queue], RUN)
        assert publish is not None
        copied = publish.properties.headers or {}
        assert not copied.keys() & NEVER_TRAVELS
        assert copied[h.QUEUE] == parked.queue
        theirs = {
            name: value
            for name, value in (headers or {}).items()
            if name not in NEVER_TRAVELS and not name.startswith(PREFIX)
        }
        assert repr({name: value for name, value in copied.items() if not name.startswith(PREFIX)}) == repr(theirs)


@pytest.mark.parametrize("name", [h.HISTORY, h.HOST, h.ATTEMPT, h.ORIGINAL, "x-death", "theirs"])
def test_what_is_nested_too_deep_to_be_read_is_shown_as_bytes_and_copied_as_it_came(name: str) -> None:
    value = nested(70)
    entry = bytes((len(name),)) + name.encode() + value
    record = encode_table({h.QUEUE: "a", h.ERROR_TYPE: "ValueError", h.HOP: "m/0/1"})[4:]
    table = record + entry
    payload = struct.pack(">HHQH", 60, 0, 0, 1 << 13) + length_prefixed(table)
    delivery = replace(from_parking(None, None, b""), header=ContentHeader(payload))
    delivery.header.make_readable()
    parked = read_parked(delivery, TOPOLOGY.routes)
    assert (parked.queue, parked.error_type) == ("a", "ValueError")
    assert parked.delivery.headers[name] == bytearray(value)
    publish = replay_publish(parked, TOPOLOGY.routes["a"], RUN)
    assert publish is not None
    assert (entry in publish.header) is (name == "theirs"), "ours and the broker's do not travel"


def test_decimals_and_bytes_are_part_of_what_tells_messages_apart() -> None:
    one = read_parked(from_parking({"d": Decimal("1.0"), "b": bytearray(b"\xff")}, None, b""), TOPOLOGY.routes)
    two = read_parked(from_parking({"d": Decimal("1.00"), "b": bytearray(b"\xff")}, None, b""), TOPOLOGY.routes)
    assert one.digest != two.digest


LONG = "x" * 100_000


def longest_text(value: Any) -> int:
    """Of all that is shown, grouped or exported of a parked message but its own headers and body."""
    match value:
        case str():
            return len(value.encode())
        case dict():
            return max(
                (longest_text(each) for name, each in value.items() if name not in ("headers", "properties")), default=0
            )
        case list() | tuple():
            return max(map(longest_text, value), default=0)
    return 0


@pytest.mark.parametrize(
    "headers",
    [
        dict.fromkeys(OURS, LONG) | {h.QUEUE: "a"},
        {h.QUEUE: "a", h.HISTORY: [{"tier": LONG, "error-type": LONG}], h.REPLAY: {"id": LONG, "count": 1}},
        {h.QUEUE: LONG, h.ERROR_TYPE: "ValueError"},
        {"x-death": [{"queue": "a", "reason": LONG, "exchange": LONG, "routing-keys": [LONG]}]},
        {
            "x-death": [
                {"queue": LONG, "reason": "rejected"},
                {"queue": "a", "reason": "rejected", "routing-keys": [LONG]},
            ]
        },
        dict.fromkeys(("MT-Reason", "MT-Fault-ExceptionType", "MT-Fault-Message", "MT-Fault-StackTrace"), LONG),
        {"MT-Reason": "fault", "MT-Fault-InputAddress": f"rabbitmq://h/{LONG}"},
        dict.fromkeys(("NServiceBus.FailedQ", "NServiceBus.ExceptionInfo.Message"), LONG),
        dict.fromkeys(("x-original-routingKey", "x-original-exchange", "x-exception-message"), LONG),
        {"rascal": {"originalQueue": LONG, "error": {"message": LONG, "code": LONG}}},
        dict.fromkeys(("x-error-type", "x-error", "x-error-stack", "x-original-queue"), LONG),
    ],
    ids=lambda headers: "+".join(list(headers)[:2]),
)
def test_no_text_that_is_read_from_headers_is_longer_than_a_record_may_have(headers: dict[str, Any]) -> None:
    parked = read_parked(from_parking(headers, "m", b""), TOPOLOGY.routes)
    assert len(parked.error_stack or "") <= 8192
    shown = {**message_object(parked), "error_stack": None, "original": None}
    exported = {**json.loads(message_line(parked, 1)), "header_base64": ""}
    for each in (shown, exported, asdict(row_of(parked)), list(group_of(parked))):
        assert longest_text(each) <= 1024
    for each in (parked.error_type, parked.queue, parked.exchange, parked.routing_key, *group_of(parked)):
        assert len(each or "") <= 255


def test_many_groups_are_counted_together_from_some_thousands_on() -> None:
    groups: Counter[str] = Counter()
    for number in range(3 * GROUPS_AT_MOST):
        count_group(groups, str(number % (2 * GROUPS_AT_MOST)), OTHERS)
    assert len(groups) == GROUPS_AT_MOST + 1
    assert (groups["0"], groups[OTHERS], groups.total()) == (2, GROUPS_AT_MOST, 3 * GROUPS_AT_MOST)
