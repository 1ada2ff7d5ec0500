"""Policies: exact patterns in short lists, and a new queue changes few of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.own_policies import MAX_PATTERN_BYTES, policies_for
from amqpflow.model.resources import Policy
from amqpflow.planning.ownership.ownership import is_own_policy
from tests.topology_files import compiled

LIMIT: tuple[str, Mapping[str, Any]] = ("quorum", {"max-length": 5})
_names = st.text(alphabet="abAB09-_.:@#,/+ ", min_size=1, max_size=255)


def matched(policies: Mapping[str, Policy], queue: str) -> list[Policy]:
    return [policy for policy in policies.values() if re.search(policy.pattern, queue)]


@given(st.sets(_names, min_size=1, max_size=60))
def test_every_queue_is_matched_by_its_own_policy_alone(queues: set[str]) -> None:
    wanted: dict[str, tuple[str, Mapping[str, Any]]] = {
        name: ("quorum", {"max-length": 1 + len(name) % 3}) for name in queues
    }
    policies = policies_for("t", wanted)
    for name, (_, definition) in wanted.items():
        (policy,) = matched(policies, name)
        assert policy.definition == definition
    for policy in policies.values():
        assert len(policy.pattern.encode()) <= MAX_PATTERN_BYTES
        assert (policy.apply_to, policy.priority) == ("queues", 10)


@given(st.sets(_names, min_size=1, max_size=40))
def test_nothing_else_is_matched(queues: set[str]) -> None:
    policies = policies_for("t", dict.fromkeys(queues, LIMIT))
    for name in queues:
        for other in (name + "x", "x" + name, name.replace(".", "x"), name.replace("+", ""), name * 2, name + "\n"):
            if other not in queues and other != name:
                assert not [each for each in matched(policies, other) if not other.endswith("\n")]


def test_long_names_make_short_lists() -> None:
    queues = {f"{number:03}.{'x+' * 100}": LIMIT for number in range(100)}
    policies = policies_for("t", queues)
    assert all(len(policy.pattern) <= MAX_PATTERN_BYTES for policy in policies.values())
    assert len(policies) >= 34  # at most three of them fit into a list
    for name in queues:
        assert len(matched(policies, name)) == 1


def test_special_characters_are_literal() -> None:
    (policy,) = policies_for("t", {"a.b+c": LIMIT}).values()
    assert policy.pattern == r"^(?:a\.b\+c)$"


@given(st.sets(_names, min_size=1, max_size=100), _names)
def test_a_new_queue_changes_few_policies(queues: set[str], new: str) -> None:
    before = policies_for("t", dict.fromkeys(queues, LIMIT))
    after = policies_for("t", dict.fromkeys(queues | {new}, LIMIT))
    # one list gets it; where that list is full, or is cut at the new name, its other half moves on as well
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    assert len(changed) <= 8


def test_a_thousand_queues_keep_nearly_all_their_policies_when_one_comes() -> None:
    queues = {f"service-{number % 17}.work.queue-{number}": LIMIT for number in range(1000)}
    before = policies_for("t", queues)
    changes = []
    for number in range(50):
        after = policies_for("t", queues | {f"service-{number % 17}.work.new-{number}": LIMIT})
        changes.append(sum(before.get(name) != after.get(name) for name in before.keys() | after.keys()))
    assert 60 < len(before) < 250
    assert max(changes) <= 4
    assert sum(changes) / len(changes) < 2


def test_the_order_of_queues_does_not_matter() -> None:
    names = [f"q{number}" for number in range(50)]
    assert policies_for("t", dict.fromkeys(names, LIMIT)) == policies_for("t", dict.fromkeys(reversed(names), LIMIT))


def test_queue_types_are_never_mixed() -> None:
    policies = policies_for("t", {"a": LIMIT, "b": ("classic", LIMIT[1])})
    assert sorted(policy.pattern for policy in policies.values()) == ["^(?:a)$", "^(?:b)$"]
    assert all(name.startswith("amqpflow.t.") for name in policies)


def test_policies_carry_tunables_alone() -> None:
    topology = compiled("""
        defaults: {retry: none}
        queues:
          a: {limits: {max_length: 5, max_length_bytes: 1KiB}, consumer_timeout: 10m, delivery_limit: 7}
          b: {type: classic, limits: {max_length: 5, overflow: drop-head}}
          c: {}
    """)
    policies = topology.desired.policies
    assert [policy.definition for policy in matched(policies, "a")] == [
        {"consumer-timeout": 600_000, "max-length": 5, "max-length-bytes": 1024}
    ]
    assert [policy.definition for policy in matched(policies, "b")] == [{"max-length": 5}]
    assert not matched(policies, "c")
    arguments = topology.desired.queues["a"].arguments
    assert not {"x-max-length", "x-max-length-bytes", "x-consumer-timeout"} & arguments.keys()
    assert topology.desired.queues["b"].arguments["x-overflow"] == "drop-head"


def test_settings_arguments_needs_no_policy() -> None:
    topology = compiled("""
        settings: arguments
        retry_policies: {n: {engine: native, delay: {min: 1s, max: 5s}, retries: 3}}
        queues:
          a: {retry: none, limits: {max_length: 5, max_length_bytes: 1KiB}, consumer_timeout: 10m}
          n: {retry: n}
    """)
    assert topology.settings == "arguments"
    assert not topology.desired.policies
    arguments = topology.desired.queues["a"].arguments
    assert (arguments["x-max-length"], arguments["x-max-length-bytes"]) == (5, 1024)
    assert arguments["x-consumer-timeout"] == 600_000
    assert topology.desired.queues["n"].arguments["x-delayed-retry-max"] == 5000


def test_the_planner_knows_these_names_as_its_own() -> None:
    queues = {f"{number}.{'x' * 90}": LIMIT for number in range(200)}
    for name in policies_for("shop.eu", queues):
        assert is_own_policy(name, "shop.eu")
        assert not is_own_policy(name, "shop")
