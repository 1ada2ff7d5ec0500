"""What a release cannot do is left out and said."""

from __future__ import annotations

import pytest

from amqpflow.model.resources import BrokerState, Policy, Queue
from amqpflow.planning.compare.release_support import adapt_to_release, refused_arguments


def state(**definition: object) -> BrokerState:
    keys = {key.replace("_", "-"): value for key, value in definition.items()}
    made = Policy(name="p", pattern="^q$", definition=keys, apply_to="quorum_queues")
    return BrokerState(policies={"p": made})


def test_consumer_timeout_is_dropped_before_3_12_and_said() -> None:
    fitting, notes = adapt_to_release(state(max_length=5, consumer_timeout=1000), (3, 10, 8))
    assert fitting.policies["p"].definition == {"max-length": 5}
    assert len(notes) == 1
    assert "consumer_timeout is left out" in notes[0]
    assert "3.10.8" in notes[0]


def test_a_policy_with_nothing_left_is_not_put() -> None:
    fitting, notes = adapt_to_release(state(consumer_timeout=1000), (3, 10, 8))
    assert fitting.policies == {}
    assert notes


def test_apply_to_is_widened_where_the_release_knows_no_queue_types() -> None:
    """Fact 11.4."""
    assert adapt_to_release(state(max_length=5), (3, 10, 8))[0].policies["p"].apply_to == "queues"
    assert adapt_to_release(state(max_length=5), (3, 12, 0))[0].policies["p"].apply_to == "quorum_queues"


@pytest.mark.parametrize("version", [(4, 0, 5), (4, 3, 6), ()])
def test_a_release_that_can_changes_nothing(version: tuple[int, ...]) -> None:
    wanted = state(max_length=5, consumer_timeout=1000)
    assert adapt_to_release(wanted, version) == (wanted, ())


def test_an_argument_that_a_release_ignores_is_said() -> None:
    wanted = BrokerState(queues={"q": Queue(name="q", arguments={"x-consumer-timeout": 1000})})
    assert adapt_to_release(wanted, (3, 10, 8))[1] == (
        "queue q: consumer_timeout has no effect before RabbitMQ 3.12, this is 3.10.8",
    )
    assert adapt_to_release(wanted, (4, 3, 6))[1] == ()


@pytest.mark.parametrize(
    ("queue_type", "locator", "refused"),
    [
        ("classic", "client-local", True),
        ("classic", "balanced", True),
        ("quorum", "min-masters", True),
        ("quorum", "balanced", False),
        ("quorum", None, False),
    ],
)
def test_where_a_leader_may_be_asked_for_is_known(queue_type: str, locator: str | None, refused: bool) -> None:
    arguments = {"x-queue-type": queue_type} | ({"x-queue-leader-locator": locator} if locator else {})
    said = list(refused_arguments(Queue(name="q", arguments=arguments), (3, 10, 8)))
    assert bool(said) is refused
    assert all("3.10.8" in each for each in said)
    assert not list(refused_arguments(Queue(name="q", arguments=arguments), (4, 0, 5)))
