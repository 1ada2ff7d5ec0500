"""Two definitions are equal exactly when RabbitMQ holds them for equal: no noise, and no silence either."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.resources import STAMP, Exchange, Policy, Queue
from amqpflow.planning.values.differences import exchange_differences, policy_differences, queue_differences, same_value

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.0, 1.0, 2.5]) | st.sampled_from(["", "1", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


def queue(**arguments: Any) -> Queue:
    return Queue(name="orders", arguments={f"x-{key.replace('_', '-')}": value for key, value in arguments.items()})


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, False), (1, "1"), (1, 1.0), ("a", None), ([1], [1, 1])])
def test_values_of_different_types_differ(one: Any, other: Any) -> None:
    assert not same_value(one, other)
    assert not same_value(other, one)


@given(VALUES)
def test_a_value_equals_itself(value: Any) -> None:
    assert same_value(value, value)


def test_key_order_does_not_matter() -> None:
    assert not queue_differences(queue(max_length=1, overflow="x"), queue(overflow="x", max_length=1))


def test_an_injected_queue_type_is_no_difference() -> None:
    """Fact 7.13: a virtual host's default queue type appears among the arguments."""
    assert not queue_differences(queue(), queue(queue_type="classic"))
    assert not queue_differences(queue(queue_type="classic"), queue())


def test_the_stamp_is_not_compared_but_decides_about_owners() -> None:
    assert not queue_differences(Queue(name="q", arguments={STAMP: "a"}), Queue(name="q"))


def test_a_differing_argument_is_named_with_both_values() -> None:
    (difference,) = queue_differences(queue(message_ttl=10000), queue(message_ttl=5000))
    assert str(difference) == "x-message-ttl is 5000 on the broker, the file says 10000"


def test_a_missing_and_a_surplus_argument_are_named() -> None:
    differences = queue_differences(queue(message_ttl=10000), queue(max_length=5))
    assert list(map(str, differences)) == [
        "x-max-length is 5 on the broker, the file does not set it",
        "x-message-ttl is not set on the broker, the file says 10000",
    ]


def test_a_number_and_its_text_are_told_apart() -> None:
    (difference,) = queue_differences(queue(message_ttl=1000), queue(message_ttl="1000"))
    assert str(difference) == 'x-message-ttl is "1000" on the broker, the file says 1000'


def test_a_type_differs() -> None:
    (difference,) = queue_differences(queue(queue_type="quorum"), queue())
    assert str(difference) == "x-queue-type is classic on the broker, the file says quorum"


def test_attributes_differ() -> None:
    differences = queue_differences(Queue(name="q"), Queue(name="q", durable=False, auto_delete=True))
    assert list(map(str, differences)) == [
        "durable is false on the broker, the file says true",
        "auto_delete is true on the broker, the file says false",
    ]


def test_an_exchange_of_somebody_else_may_carry_further_arguments() -> None:
    mine = Exchange(name="e", type="topic", arguments={STAMP: "shop"})
    assert not exchange_differences(mine, Exchange(name="e", type="topic", arguments={"x-made-by": "terraform"}))
    assert not exchange_differences(mine, Exchange(name="e", type="topic", arguments={STAMP: "billing"}))


def test_an_alternate_exchange_always_matters() -> None:
    mine = Exchange(name="e", type="topic", arguments={STAMP: "shop"})
    (difference,) = exchange_differences(mine, Exchange(name="e", type="topic", arguments={"alternate-exchange": "a"}))
    assert str(difference) == "alternate-exchange is a on the broker, the file does not set it"


def test_arguments_of_a_plugins_exchange_always_matter() -> None:
    mine = Exchange(name="e", type="x-thing", arguments={STAMP: "shop"})
    assert exchange_differences(mine, Exchange(name="e", type="x-thing", arguments={"hash-header": "h"}))


def test_a_policy_differs_in_its_attributes_and_its_definition() -> None:
    one = Policy(name="p", pattern="^a$", definition={"max-length": 1}, priority=1)
    other = Policy(name="p", pattern="^b$", definition={"max-length": 2}, priority=2, apply_to="all")
    assert [each.key for each in policy_differences(one, other)] == ["pattern", "priority", "apply-to", "max-length"]
    assert not policy_differences(one, one)


@pytest.mark.parametrize(
    ("theirs", "shown"),
    [
        ("undefined", '"undefined"'),
        ("false", '"false"'),
        (0, "0"),
        (None, "not set"),
        ([], "[]"),
    ],
)
def test_a_flag_that_is_neither_true_nor_false_differs_from_both(theirs: Any, shown: str) -> None:
    """As an import of definitions leaves it: RabbitMQ answers a redeclare with 406."""
    there = Exchange(name="e", type="topic", auto_delete=theirs)
    for wanted in (False, True):
        (difference,) = exchange_differences(Exchange(name="e", type="topic", auto_delete=wanted), there)
        said = f"auto_delete is {shown} on the broker, the file says {str(wanted).lower()}"
        assert str(difference) == said
