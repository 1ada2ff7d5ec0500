"""Which parking queues may be read, by their effective delivery limit."""

from __future__ import annotations

import pytest

from amqpflow.model.resources import Policy, Queue
from amqpflow.services.reading.guard import consumer_timeout, length_problem, reading_problem

V3, V40, V43 = (3, 10, 8), (4, 0, 5), (4, 3, 6)


def queue(kind: str = "quorum", **limit: object) -> Queue:
    arguments = {"x-queue-type": kind, **{f"x-delivery-{key}": value for key, value in limit.items()}}
    return Queue(name="parking", arguments=arguments)


def policy(**definition: object) -> Policy:
    return Policy(name="theirs", pattern=".*", definition={k.replace("_", "-"): v for k, v in definition.items()})


@pytest.mark.parametrize("version", [V3, V40, V43])
def test_what_amqpflow_applies_is_safe(version: tuple[int, ...]) -> None:
    assert reading_problem(queue(limit=1_000_000), (), version) is None
    assert reading_problem(queue(limit=1_000_000), (policy(max_length=5),), version) is None
    assert reading_problem(queue("classic"), (policy(delivery_limit=1),), version) is None


@pytest.mark.parametrize(
    ("found", "policies", "version", "problem"),
    [
        (queue(), (), V40, "default delivery limit of 20"),
        (queue(), (), V43, "default delivery limit of 20"),
        (queue(limit="x"), (), V43, "default delivery limit of 20"),
        (queue(limit=True), (), V43, "default delivery limit of 20"),
        (queue(limit=20), (), V3, "argument x-delivery-limit limits it to 20"),
        (queue(limit=-1), (), V3, "below 0, which RabbitMQ 3 takes as 0"),
        (queue(limit=1_000_000), (policy(delivery_limit=7),), V43, "policy theirs limits it to 7"),
        (queue(limit=-1), (policy(delivery_limit=7),), V43, "policy theirs limits it to 7"),
        (queue("stream"), (), V43, "stream queue"),
    ],
)
def test_what_could_use_messages_up_is_a_problem(
    found: Queue, policies: tuple[Policy, ...], version: tuple[int, ...], problem: str
) -> None:
    assert problem in str(reading_problem(found, policies, version))


def test_what_has_no_limit_is_safe() -> None:
    assert reading_problem(queue(limit=-1), (), V40) is None
    assert reading_problem(queue(), (policy(delivery_limit=-1),), V43) is None
    assert reading_problem(queue(), (), V3) is None


def test_the_smallest_consumer_timeout_counts() -> None:
    argued = Queue(name="parking", arguments={"x-queue-type": "quorum", "x-consumer-timeout": 5000})
    assert consumer_timeout(queue(), (policy(max_length=5),)) is None
    assert consumer_timeout(queue(), (policy(consumer_timeout=7000), policy(consumer_timeout=6000))) == 6000
    assert consumer_timeout(argued, (policy(consumer_timeout=7000),)) == 5000


@pytest.mark.parametrize("key", ["max-length", "max-length-bytes"])
@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_length_limit_is_a_problem_where_anything_lets_it_drop_the_head(kind: str, key: str) -> None:
    def argued(**arguments: object) -> Queue:
        named = {"x-" + name.replace("_", "-"): value for name, value in arguments.items()}
        return Queue(name="parking", arguments={"x-queue-type": kind, **named})

    limits = {key.replace("-", "_"): 5}
    assert length_problem(argued(), ()) is None
    assert length_problem(argued(overflow="drop-head"), ()) is None
    assert "its arguments limit it to 5" in str(length_problem(argued(**limits), ()))
    assert "policy theirs limit it to 5" in str(length_problem(argued(), (policy(**limits),)))
    assert length_problem(argued(**limits, overflow="reject-publish"), ()) is None
    assert length_problem(argued(**limits), (policy(overflow="reject-publish-dlx"),)) is None
    assert length_problem(argued(**limits, overflow="reject-publish"), (policy(overflow="drop-head"),)) is not None
