"""What imported definitions leave on a broker is kept as it is, and what cannot be kept is named."""

from __future__ import annotations

from typing import Any

import pytest

from amqpflow.model.resources import STAMP, Exchange
from amqpflow.rabbitmq import decode

EXCHANGE = {"name": "e", "type": "direct", "durable": True, "auto_delete": False, "internal": False, "arguments": {}}
QUEUE = {"name": "q", "durable": True, "auto_delete": False, "exclusive": False, "arguments": {}}
BINDING = {"source": "e", "destination": "q", "destination_type": "queue", "routing_key": "k", "arguments": {}}
POLICY = {"name": "p", "pattern": ".*", "definition": {}, "priority": 0, "apply-to": "all"}
ODD = ("undefined", "false", None, 0, 7, [], [1], {})


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("key", ["durable", "auto_delete", "internal"])
def test_a_flag_of_an_exchange_is_kept_as_it_is(key: str, value: Any) -> None:
    assert getattr(decode.exchange({**EXCHANGE, key: value}), key) == value


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("key", ["durable", "auto_delete", "exclusive"])
def test_a_flag_of_a_queue_is_kept_as_it_is(key: str, value: Any) -> None:
    assert getattr(decode.queue({**QUEUE, key: value}), key) == value


def test_a_flag_that_is_missing_is_neither_true_nor_false() -> None:
    assert decode.exchange({"name": "e", "type": "direct", "arguments": {}}).auto_delete is None
    assert decode.queue({"name": "q", "arguments": {}}).durable is None


def test_a_routing_key_that_is_no_string_is_no_key_that_a_file_can_have() -> None:
    keys = (None, 7, [], [1], "undefined", "7", "null")
    found = [decode.binding({**BINDING, "routing_key": key}) for key in keys]
    assert [each.routing_key for each in found] == [
        "null (not a string)",
        "7 (not a string)",
        "[] (not a string)",
        "[1] (not a string)",
        "undefined",
        "7",
        "null",
    ]
    assert len({each.identity for each in found}) == len(keys)


@pytest.mark.parametrize("stamp", [7, True, None, ["shop"], {"name": "shop"}])
def test_a_stamp_that_is_no_string_is_no_stamp(stamp: Any) -> None:
    arguments = {STAMP: stamp, "alternate-exchange": stamp}
    exchange = decode.exchange({**EXCHANGE, "arguments": arguments})
    assert (exchange.owner, exchange.alternate_exchange) == (None, None)
    assert exchange.arguments == arguments
    assert decode.queue({**QUEUE, "arguments": {STAMP: stamp}}).owner is None


@pytest.mark.parametrize("arguments", [[], {}])
def test_an_empty_table_may_be_a_list(arguments: Any) -> None:
    assert decode.exchange({**EXCHANGE, "arguments": arguments}) == Exchange(name="e", type="direct")


@pytest.mark.parametrize(
    ("decoder", "entry", "text"),
    [
        (decode.exchange, {**EXCHANGE, "arguments": "x"}, "exchange 'e': arguments is \"x\""),
        (decode.exchange, {**EXCHANGE, "type": None}, "exchange 'e': type is null"),
        (decode.queue, {**QUEUE, "arguments": [1]}, "queue 'q': arguments is [1]"),
        (decode.binding, {**BINDING, "destination": 7}, "binding 'e': destination is 7"),
        (decode.policy, {**POLICY, "pattern": None}, "policy 'p': pattern is null"),
        (decode.policy, {**POLICY, "definition": None}, "policy 'p': definition is null"),
        (decode.policy, {**POLICY, "priority": "high"}, "policy 'p': priority is \"high\""),
        (decode.policy, {**POLICY, "priority": True}, "policy 'p': priority is true"),
    ],
)
def test_what_cannot_be_kept_is_named_with_its_key(decoder: Any, entry: dict[str, Any], text: str) -> None:
    with pytest.raises(decode.UnreadableObjectError) as odd:
        decoder(entry)
    assert str(odd.value) == text


@pytest.mark.parametrize("entry", [7, None, [], {}, {"name": 3}])
@pytest.mark.parametrize("decoder", [decode.exchange, decode.queue, decode.binding, decode.policy])
def test_what_has_no_name_is_not_rabbitmqs(decoder: Any, entry: Any) -> None:
    with pytest.raises((ValueError, AttributeError)) as strange:
        decoder(entry)
    assert not isinstance(strange.value, decode.UnreadableObjectError)
