"""A class with the quick `__init__` is the same class in every other way."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from amqpflow.model.fast_dataclass import fast_init, fast_replace
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    left: int
    right: str | None = None
    more: dict[str, int] = field(default_factory=dict)


def test_it_is_made_compared_shown_and_copied_as_any_dataclass() -> None:
    pair = Pair(left=1)
    assert (pair.left, pair.right, pair.more) == (1, None, {})
    assert pair == Pair(left=1, right=None, more={})
    assert repr(pair).endswith("Pair(left=1, right=None, more={})")
    assert replace(pair, right="r") == Pair(left=1, right="r")
    assert Pair(left=1).more is not pair.more


def test_a_copy_differs_in_what_is_given_alone() -> None:
    pair, replaced = Pair(left=1, right="r", more={"a": 1}), fast_replace(Pair)
    assert replaced(pair, right=None) == replace(pair, right=None) == Pair(left=1, more={"a": 1})
    assert replaced(pair) == pair
    with pytest.raises(TypeError, match="wrong"):
        replaced(pair, wrong=2)


def test_it_stays_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Pair(left=1).left = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Properties().message_id = "m"  # type: ignore[misc]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TypeError, match="left"):
        Pair()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="wrong"):
        Pair(left=1, wrong=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Delivery("queue")  # type: ignore[call-arg, misc]


def test_a_field_that_is_not_given_cannot_be_quick() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Computed:
        value: int = field(init=False)

    with pytest.raises(TypeError, match="value"):
        fast_init(Computed)
