"""What works on a queue: argument, policies and defaults, by release."""

from __future__ import annotations

from typing import Any

import pytest

from amqpflow.model.resources import Policy, Queue
from amqpflow.planning.policies.effective import Effective, Origin, effective

OLD, FOUR, NEW = (3, 10, 8), (4, 0, 5), (4, 3, 6)
RELEASES = (OLD, FOUR, NEW)
OURS = "amqpflow.shop.quorum-0123abcd"


def works(
    kind: str = "quorum",
    policy: dict[str, Any] | None = None,
    operator: dict[str, Any] | None = None,
    *,
    version: tuple[int, ...] = NEW,
    name: str = "ops",
    **arguments: Any,
) -> Effective:
    given = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    queue = Queue(name="q", arguments={"x-queue-type": kind, **given})
    policies = [] if policy is None else [Policy(name=name, pattern="^q$", definition=policy)]
    operators = [] if operator is None else [Policy(name="guard", pattern="", definition=operator)]
    return effective(queue, policies, operators, version=version, topology="shop")


@pytest.mark.parametrize("version", RELEASES, ids=str)
@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize("key", ["message-ttl", "expires", "max-length", "max-length-bytes"])
def test_of_two_numbers_the_smaller_works(key: str, kind: str, version: tuple[int, ...]) -> None:
    argument = {key.replace("-", "_"): 5}
    for policy, operator, value, origin in (
        ({key: 2}, None, 2, Origin.POLICY),
        ({key: 9}, None, 5, Origin.ARGUMENT),
        (None, {key: 3}, 3, Origin.OPERATOR_POLICY),
        ({key: 2}, {key: 3}, 2, Origin.POLICY),
        ({key: 4}, {key: 3}, 3, Origin.OPERATOR_POLICY),
    ):
        setting = works(kind, policy, operator, version=version, **argument).settings[key]
        assert (setting.value, setting.source.origin) == (value, origin)
        assert len(setting.overruled) == (policy is not None) + (operator is not None)


@pytest.mark.parametrize("key", ["dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy"])
def test_for_dead_lettering_the_argument_works(key: str) -> None:
    values = ("at-least-once", "at-most-once") if key.endswith("strategy") else ("mine", "theirs")
    base = {"dead_letter_exchange": "dlx", "overflow": "reject-publish"}
    found = works(policy={key: values[1]}, **{**base, key.replace("-", "_"): values[0]}).settings[key]
    assert (found.value, found.source.origin) == (values[0], Origin.ARGUMENT)
    assert [(each.value, each.source.name) for each in found.overruled] == [(values[1], "ops")]
    assert "the argument overrides any policy" in found.overruled[0].why


@pytest.mark.parametrize(("kind", "value"), [("classic", "reject-publish"), ("quorum", "drop-head")])
def test_overflow_differs_by_type(kind: str, value: str) -> None:
    assert works(kind, {"overflow": "drop-head"}, overflow="reject-publish").value("overflow") == value


@pytest.mark.parametrize(("kind", "value"), [("classic", "reject-publish"), ("quorum", "drop-head")])
def test_an_operator_policys_overflow_goes_before_a_policys(kind: str, value: str) -> None:
    found = works(kind, {"overflow": "reject-publish"}, {"overflow": "drop-head"}, overflow="reject-publish")
    assert found.value("overflow") == value


def test_a_policy_with_drop_head_switches_at_least_once_off() -> None:
    own = {"dead_letter_exchange": "", "dead_letter_strategy": "at-least-once", "overflow": "reject-publish"}
    assert works(**own).at_least_once
    setting = works(policy={"overflow": "drop-head"}, **own).settings["dead-letter-strategy"]
    assert (setting.value, str(setting.source)) == ("at-most-once", "policy ops")
    assert "needs overflow reject-publish" in setting.overruled[0].why
    assert not works(dead_letter_strategy="at-least-once", overflow="reject-publish").at_least_once


@pytest.mark.parametrize(
    ("version", "argument", "policy", "value"),
    [
        (OLD, None, None, None),
        (FOUR, None, None, 20),
        (NEW, None, None, 20),
        ((), None, None, 20),
        (FOUR, -1, 2, 2),
        (FOUR, 5, -1, 5),
        (FOUR, -1, None, -1),
        (OLD, -1, 5, -1),
        (NEW, 50, 1000, 50),
    ],
)
def test_the_delivery_limit(version: tuple[int, ...], argument: Any, policy: Any, value: Any) -> None:
    arguments = {} if argument is None else {"delivery_limit": argument}
    definition = None if policy is None else {"delivery-limit": policy}
    assert works(policy=definition, version=version, **arguments).value("delivery-limit") == value


@pytest.mark.parametrize(
    ("kind", "version", "value"),
    [("quorum", OLD, 1_800_000), ("quorum", FOUR, 5000), ("quorum", NEW, 5000), ("classic", NEW, 1_800_000)],
)
def test_a_consumer_timeout_works_where_the_release_has_it(kind: str, version: tuple[int, ...], value: int) -> None:
    setting = works(kind, {"consumer-timeout": 5000}, version=version).settings["consumer-timeout"]
    assert setting.value == value
    assert [each.value for each in setting.overruled] == ([] if value == 5000 else [5000])


@pytest.mark.parametrize(("version", "value"), [(OLD, None), (FOUR, 1), (NEW, 31)])
def test_priorities_of_a_quorum_queue_are_those_of_the_release(version: tuple[int, ...], value: Any) -> None:
    assert works(version=version).value("max-priority") == value


def test_native_retry_before_4_3_is_no_setting_at_all() -> None:
    setting = works(version=FOUR, delayed_retry_type="failed").settings["delayed-retry-type"]
    assert setting.value is None
    assert "does not know it" in setting.overruled[0].why


@pytest.mark.parametrize("operator", [False, True])
def test_a_policy_with_a_key_of_the_other_type_is_passed_over_as_a_whole(operator: bool) -> None:
    definition = {"delivery-limit": 5, "message-ttl": 1000}
    found = works("classic", None, definition) if operator else works("classic", definition)
    assert found.value("message-ttl") is None
    assert [(each.policy.definition, each.keys) for each in found.passed_over] == [(definition, ("delivery-limit",))]


@pytest.mark.parametrize(
    ("version", "key", "passed_over"),
    [
        (OLD, "queue-leader-locator", True),
        (FOUR, "queue-leader-locator", False),
        (OLD, "max-in-memory-length", False),
        (FOUR, "max-in-memory-length", True),
    ],
)
def test_what_a_classic_queue_does_not_know_differs_between_releases(
    version: tuple[int, ...], key: str, passed_over: bool
) -> None:
    found = works("classic", {key: "balanced", "message-ttl": 5}, version=version)
    assert found.value("message-ttl") == (None if passed_over else 5)


def test_a_policy_with_a_higher_priority_works_alone() -> None:
    policies = [
        Policy(name=OURS, pattern="^q$", definition={"max-length": 5}, priority=10),
        Policy(name="ops", pattern="", definition={"message-ttl": 1000}, priority=11),
    ]
    found = effective(Queue(name="q", arguments={"x-queue-type": "quorum"}), policies, topology="shop")
    assert found.value("max-length") is None
    (overruled,) = found.settings["max-length"].overruled
    assert overruled.source.origin is Origin.OUR_POLICY
    assert "policy ops has the higher priority (11 over 10)" in overruled.why
    assert [each.name for each in found.hidden] == [OURS]


def test_of_equal_priorities_either_may_win() -> None:
    policies = [
        Policy(name="a", pattern="", definition={"max-length": 5, "expires": 7}),
        Policy(name="b", pattern="", definition={"max-length": 9, "expires": 7}),
    ]
    found = effective(Queue(name="q"), policies)
    assert not found.settings["max-length"].certain
    assert {each.value for each in found.settings["max-length"].possible} == {5, 9}
    assert found.settings["expires"].certain


def test_a_source_says_what_it_is() -> None:
    found = works(policy={"max-length": 5}, operator={"expires": 5}, name=OURS, message_ttl=7)
    sources = {key: str(found.settings[key].source) for key in ("max-length", "expires", "message-ttl", "overflow")}
    assert sources == {
        "max-length": f"our policy {OURS}",
        "expires": "operator policy guard",
        "message-ttl": "argument x-message-ttl",
        "overflow": "broker default",
    }
