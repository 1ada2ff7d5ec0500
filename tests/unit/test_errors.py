"""Errors were named without `Error` once: the old names stay until 1.0."""

from __future__ import annotations

import pytest

import amqpflow
from amqpflow import errors
from amqpflow.model.error_names import RENAMED
from amqpflow.services.handling.errors import is_named


def test_every_error_ends_in_error() -> None:
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(found) > 20
    assert all(each.__name__.endswith("Error") and each.__name__ in amqpflow.__all__ for each in found)


@pytest.mark.parametrize("old", [*RENAMED, "ReplayChoice", "SelectionInvalid"])
def test_an_old_name_is_the_same_class_and_warns(old: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"^amqpflow.{old} is now amqpflow.{NEW[old]}$") as warned:
        assert getattr(amqpflow, old) is getattr(amqpflow, NEW[old])
    assert warned[0].filename == __file__
    if old in RENAMED:
        with pytest.warns(DeprecationWarning, match=f"^amqpflow.{old} is now") as warned:
            assert getattr(errors, old) is getattr(errors, NEW[old])
        assert warned[0].filename == __file__
    assert old not in dir(amqpflow)


def test_an_old_name_catches() -> None:
    with pytest.warns(DeprecationWarning, match="Refused"):
        old = amqpflow.Refused
    with pytest.raises(old, match="missing"):
        raise amqpflow.NotAppliedError("missing")


@pytest.mark.parametrize("module", [amqpflow, errors])
def test_another_name_is_no_attribute(module: object) -> None:
    assert not hasattr(module, "Refusal")
    assert not hasattr(module, "_Refused")


@pytest.mark.parametrize("name", ["Unroutable", "amqpflow.errors.Unroutable", "amqpflow.Unroutable"])
def test_a_rule_may_have_the_old_name(name: str) -> None:
    assert is_named(errors.UnroutableError, name)
    assert is_named(errors.UnroutableError, f"{name}Error")
    assert not is_named(errors.PublishRefusedError, name)
    assert not is_named(type("Other", (Exception,), {}), name)


NEW = {**RENAMED, "ReplayChoice": "ReplayRequest", "SelectionInvalid": "InvalidSelectionError"}
