"""A handler's own retry policy: another one of the file, in the retry queues that the queue has."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqpflow import Consumer, InvalidHandlerError, Message, Topology

FILE = """
version: 1
name: shop
retry_policies:
  standard: {delays: [5s, 30s, 5m]}
  short:
    delays: [30s]
    give_up_after: 1h
    on: [{errors: [ValueError], park: invalid}, {errors: [OSError], delays: [5s]}]
  patient: {delays: [1m, 5m, 2h]}
  broker: {engine: native, delay: {min: 1s, max: 30s}, retries: 8}
queues:
  orders: {retry: standard}
  mails: {retry: none}
  fast: {retry: broker}
"""


async def handle(message: Message) -> None: ...


@pytest.fixture
def consumer(tmp_path: Path) -> Consumer:
    file = tmp_path / "topology.yaml"
    file.write_text(FILE)
    return Consumer(Topology.load(file), "amqp://localhost")


def test_the_other_policy_takes_the_queues_own_retry_queues(consumer: Consumer) -> None:
    consumer.add_handler("orders", handle, retry_policy="short")
    routes = consumer._handlers.routes("orders", consumer.compiled)
    assert [[tier.queue for tier in step.tiers] for step in routes.steps] == [["orders.retry.30s"]]
    assert routes.give_up_after_ms == 3_600_000
    assert [rule.park for rule in routes.rules] == ["invalid", None]
    assert [tier.queue for step in routes.rules[1].steps or () for tier in step.tiers] == ["orders.retry.5s"]
    own = consumer.compiled.routes["orders"]
    assert (routes.queue, routes.parking_queue, routes.queue_type) == (own.queue, own.parking_queue, own.queue_type)


def test_without_one_the_queues_own_policy_holds(consumer: Consumer) -> None:
    consumer.add_handler("orders", handle)
    assert consumer._handlers.routes("orders", consumer.compiled) == consumer.compiled.routes["orders"]


@pytest.mark.parametrize(
    ("queue", "policy", "what", "hint"),
    [
        ("orders", "shor", "has no retry policy 'shor'", "did you mean short"),
        ("orders", "zzz", "has no retry policy 'zzz'", "its retry policies are standard, short, patient, broker"),
        ("orders", "patient", "needs retry queues of 1m, 2h", "queues: orders: retry: patient"),
        ("mails", "short", "needs retry queues of 5s, 30s", "queues: mails: retry: short"),
        ("orders", "broker", "RabbitMQ's own retries", "queues: orders: retry: broker"),
        ("fast", "standard", "RabbitMQ's own retries", "queues: fast: retry: standard"),
    ],
)
def test_what_the_topology_does_not_have_is_refused_with_what_to_write(
    consumer: Consumer, queue: str, policy: str, what: str, hint: str
) -> None:
    with pytest.raises(InvalidHandlerError, match=what) as refused:
        consumer.add_handler(queue, handle, retry_policy=policy)
    assert hint in str(refused.value.hint)
