"""Which policy works on which object, as RabbitMQ decides it."""

from __future__ import annotations

import pytest

from amqpflow.model.resources import Exchange, Policy, Queue
from amqpflow.planning.policies.matching import applies, may_work, surely_matches, working

QUORUM = Queue(name="orders.confirm", arguments={"x-queue-type": "quorum"})
CLASSIC = Queue(name="orders.confirm", arguments={"x-queue-type": "classic"})
EXCHANGE = Exchange(name="orders.retry", type="direct")


def policy(pattern: str = ".*", apply_to: str = "all", priority: int = 0, name: str = "p", **keys: object) -> Policy:
    definition = {key.replace("_", "-"): value for key, value in keys.items()} or {"max-length": 1}
    return Policy(name=name, pattern=pattern, apply_to=apply_to, priority=priority, definition=definition)


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [("confirm", True), ("^orders", True), ("^confirm", False), ("orders.confirm", True), ("", True)],
)
def test_a_pattern_is_searched_unanchored(pattern: str, matches: bool) -> None:
    assert applies(policy(pattern), QUORUM, ()) is matches


@pytest.mark.parametrize(
    ("apply_to", "quorum", "classic", "exchange"),
    [
        ("all", True, True, True),
        ("queues", True, True, False),
        ("exchanges", False, False, True),
        ("quorum_queues", True, False, False),
        ("classic_queues", False, True, False),
        ("streams", False, False, False),
    ],
)
def test_apply_to_limits_what_a_policy_covers(apply_to: str, quorum: bool, classic: bool, exchange: bool) -> None:
    found = tuple(applies(policy(apply_to=apply_to), target, ()) for target in (QUORUM, CLASSIC, EXCHANGE))
    assert found == (quorum, classic, exchange)


def test_a_key_of_another_queue_type_makes_rabbitmq_pass_the_whole_policy_over() -> None:
    """Fact 11.6d."""
    mixed = policy(delivery_limit=5, message_ttl=1000)
    assert applies(mixed, QUORUM, ())
    assert not applies(mixed, CLASSIC, ())
    assert not applies(policy(ha_mode="all"), QUORUM, ())


def test_only_the_highest_priority_works() -> None:
    low, high = policy(name="low", priority=-1), policy(name="high", priority=3)
    assert working([low, high], QUORUM) == (high,)


def test_a_tie_is_all_of_them() -> None:
    one, other = policy(name="one"), policy(name="other")
    assert working([one, other], QUORUM) == (one, other)


def test_a_pattern_that_cannot_be_read_here_counts_as_matching() -> None:
    strange = policy(r"\Qorders\E(*UCP)")
    assert not surely_matches(strange, QUORUM)
    assert applies(strange, QUORUM, ())


def test_below_a_policy_whose_pattern_cannot_be_read_the_next_one_may_work() -> None:
    strange, low, lowest = (
        policy(r"\Qorders\E", name="strange", priority=9),
        policy(name="low", priority=3),
        policy(name="lowest", priority=1),
    )
    assert may_work([lowest, low, strange], QUORUM) == (strange, low)
    assert may_work([lowest, low], QUORUM) == (low,)
    assert may_work([strange], QUORUM) == (strange,)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[[:alpha:]]+\.nothing$",
        r"^[^x[:digit:]]+$",
        r"[[.a.]]",
        r"[[=a=]]",
        r"^x{,3}$",
        r"^\Qx\E$",
        r"x\Z",
        r"x\z",
        r"\hx",
        r"\Hx$x",
        r"\Rx",
        r"x\K",
        r"\Gx",
        r"\vx",
        r"\x{78}x",
        r"(x)\1",
        r"x++",
        r"x{2}+",
        r"(?>x)",
        r"(?R)x",
        r"(?&n)x",
        r"y(?i)x",
        r"(?x) x",
        r"(?i:x)",
        r"(?(1)x|y)",
        r"(*ACCEPT)x",
        r"[a--x]",
        r"[a&&x]",
        "x\\",
        "(x",
    ],
)
def test_a_pattern_that_python_may_read_otherwise_than_pcre_counts_as_matching(pattern: str) -> None:
    """RabbitMQ's patterns are PCRE; Python takes some of these too, for something that does not match."""
    assert not surely_matches(policy(pattern), QUORUM)
    assert applies(policy(pattern), QUORUM, ())


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        (r"^(?:orders\.confirm|x)$", True),
        (r"(?i)^ORDERS\.", True),
        (r"^[\w.-]+$", True),
        (r"^[^]a]{5,}?\.[a-z]*$", True),
        (r"^(?!amq\.)(?P<team>\w+)\b.*(?<=confirm)$", True),
        (r"^\d+$", False),
        (r"^x{2}\{\}\-\ $", False),
        ("^[]}]$|^}]$", False),
    ],
)
def test_what_both_languages_read_the_same_is_judged(pattern: str, matches: bool) -> None:
    assert applies(policy(pattern), QUORUM, ()) is matches
    assert surely_matches(policy(pattern), QUORUM)


def test_a_pattern_is_matched_with_the_bytes_of_a_name() -> None:
    umlaut = Queue(name="ä", arguments={"x-queue-type": "quorum"})
    assert applies(policy("^ä$"), umlaut, ())
    assert applies(policy("^..$"), umlaut, ())
    assert not applies(policy("^.$"), umlaut, ())
    assert applies(policy(r"^\d$"), umlaut, ()), "which bytes are letters cannot be told here"
