"""What --allow says: words for all, names for one object each; every other value is refused with what is possible."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.planning.values.approvals import KINDS, allow_flag, parse_allowance

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=12).filter(
    lambda name: name.strip(",") == name and ",," not in name
)


def test_words_are_for_all_and_names_for_one() -> None:
    allowance = parse_allowance(["replace,delete:a b", " delete:orders.old ", "delete:exchange events"])
    assert allowance.words == {"replace"}
    assert allowance.forced == {"a b", "orders.old"}
    assert allowance.names("delete", "exchange events")
    assert not allowance.names("delete", "queue events")
    assert not parse_allowance([]).words


def test_migrate_which_was_offered_before_allows_nothing_and_is_no_error() -> None:
    assert parse_allowance(["migrate", "migrate,delete"]) == parse_allowance(["delete"])


def test_what_reads_like_a_binding_is_one() -> None:
    allowance = parse_allowance(["delete:events -> invoices (order.placed),delete:h -> q [a=1, b=2]"])
    assert allowance.names("delete", "binding events -> invoices (order.placed)")
    assert allowance.names("delete", "binding h -> q [a=1, b=2]")
    assert parse_allowance(["delete:queue a -> b"]).forced == {"a -> b"}


@given(st.sampled_from(KINDS), NAMES)
def test_a_flag_is_read_as_what_it_was_written_for(kind: str, name: str) -> None:
    """As a shell splits it, commas in names included."""
    _, value = shlex.split(allow_flag("delete", f"{kind} {name}"))
    assert parse_allowance([value]).named == {("delete", f"{kind} {name}")}


@pytest.mark.parametrize("text", ["", "all", "delete:", "delete: ", "replace:orders", "delete,,replace", "DELETE"])
def test_other_values_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown value .*; use replace, delete, or one object alone"):
        parse_allowance([text])
