"""What --allow says: words for all, names for one object each; every other value is refused with what is possible."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.planning.values.approvals import KINDS, Approval, allow_flag, parse_approvals
from amqpflow.planning.values.findings import Ref

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=12).filter(
    lambda name: name.strip(",") == name and ",," not in name
)


def test_words_are_for_all_and_names_for_one() -> None:
    approvals = parse_approvals(["replace,delete:a b", " delete:orders.old ", "delete:exchange events"])
    one_each = (Ref("queue", "a b"), Ref("queue", "orders.old"), Ref("exchange", "events"))
    assert approvals == {Approval("replace"), *(Approval("delete", each) for each in one_each)}
    assert not parse_approvals([])


def test_migrate_which_was_offered_before_allows_nothing_and_is_no_error() -> None:
    assert parse_approvals(["migrate", "migrate,delete"]) == parse_approvals(["delete"])


def test_what_reads_like_a_binding_is_one() -> None:
    approvals = parse_approvals(["delete:events -> invoices (order.placed),delete:h -> q [a=1, b=2]"])
    assert Approval("delete", Ref("binding", "events -> invoices (order.placed)")) in approvals
    assert Approval("delete", Ref("binding", "h -> q [a=1, b=2]")) in approvals
    assert parse_approvals(["delete:queue a -> b"]) == {Approval("delete", Ref("queue", "a -> b"))}


@given(st.sampled_from(KINDS), NAMES)
def test_a_flag_is_read_as_what_it_was_written_for(kind: str, name: str) -> None:
    """As a shell splits it, commas in names included."""
    approval = Approval("delete", Ref(kind, name))
    _, value = shlex.split(allow_flag(approval))
    assert parse_approvals([value]) == {approval}


@pytest.mark.parametrize("text", ["", "all", "delete:", "delete: ", "replace:orders", "delete,,replace", "DELETE"])
def test_other_values_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown value .*; use replace, delete, or one object alone"):
        parse_approvals([text])
