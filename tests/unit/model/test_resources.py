"""Broker objects as values."""

from __future__ import annotations

import dataclasses

import pytest

from amqpflow.model.resources import STAMP, Binding, Exchange, Queue


def test_the_owner_is_in_the_stamp() -> None:
    assert Queue(name="q", arguments={STAMP: "shop"}).owner == "shop"
    assert Exchange(name="e", type="topic", arguments={STAMP: "shop"}).owner == "shop"
    assert Queue(name="q").owner is None
    assert Exchange(name="e", type="topic").owner is None


def test_a_queue_without_a_type_is_classic() -> None:
    assert Queue(name="q").type == "classic"
    assert Queue(name="q", arguments={"x-queue-type": "quorum"}).type == "quorum"


def test_the_alternate_exchange_is_an_argument() -> None:
    assert Exchange(name="e", type="topic", arguments={"alternate-exchange": "a"}).alternate_exchange == "a"
    assert Exchange(name="e", type="topic").alternate_exchange is None


def test_a_binding_is_its_ends_key_and_arguments() -> None:
    one = Binding(source="e", destination="q", routing_key="k", arguments={"a": 1, "b": 2})
    same = Binding(source="e", destination="q", routing_key="k", arguments={"b": 2, "a": 1})
    assert one.identity == same.identity
    for change in (
        {"source": "f"},
        {"destination": "r"},
        {"destination_type": "exchange"},
        {"routing_key": "l"},
        {"arguments": {"a": 1}},
        {"arguments": {"a": 1, "b": "2"}},
    ):
        assert dataclasses.replace(one, **change).identity != one.identity  # type: ignore[arg-type]


def test_values_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Queue(name="q").name = "r"  # type: ignore[misc]


def test_bindings_are_told_apart_by_types_and_not_by_the_order_of_keys_at_any_depth() -> None:
    def identity(**arguments: object) -> tuple[str, ...]:
        return Binding(source="e", destination="q", arguments=arguments).identity

    assert identity(a=[{"x": 1, "y": {"u": 1, "v": 2}}], b=2) == identity(b=2, a=[{"y": {"v": 2, "u": 1}, "x": 1}])
    assert len({identity(a=value) for value in (1, "1", True, 1.0, [1], {"1": 1}, None)}) == 7
