"""Names read back from patterns of ours."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.own_policies import policies_for
from amqpflow.model.resources import Policy, Queue
from amqpflow.planning.policies.index import ByName, named_exactly
from amqpflow.planning.policies.matching import working

names = st.text("ab.-_:@#,/+ ", min_size=1, max_size=5)


@given(st.sets(names, min_size=1, max_size=30))
def test_the_names_in_our_patterns_are_read_back(queues: set[str]) -> None:
    made = policies_for("shop", {queue: ("quorum", {"max-length": 1}) for queue in queues})
    found = [name for policy in made.values() for name in named_exactly(policy.pattern) or ()]
    assert sorted(found) == sorted(queues)


@pytest.mark.parametrize("pattern", ["^a", "a$", "^(?:a|b.)$", "^(a*)$", "^(?:a)$|x", "^(?i:a)$", "^(?:\\d)$", ""])
def test_other_patterns_name_nothing_exactly(pattern: str) -> None:
    assert named_exactly(pattern) is None


@given(st.lists(st.sampled_from(["^(?:a|b)$", "^(?:b|a\\.b)$", "^a", ".", "^(b)$"]), max_size=6), names)
def test_looking_by_name_finds_what_looking_at_all_finds(patterns: list[str], name: str) -> None:
    policies = [Policy(name=str(n), pattern=each, definition={}, priority=n % 2) for n, each in enumerate(patterns)]
    queue = Queue(name=name)
    assert set(map(id, working(ByName(policies).near(name), queue))) == set(map(id, working(policies, queue)))
    assert all(re.search(each.pattern, name) for each in working(policies, queue))
