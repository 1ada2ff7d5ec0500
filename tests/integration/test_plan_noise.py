"""A plan says nothing where nothing differs: RabbitMQ's ways of writing are no drift, nor are others' objects."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from amqpflow.api import functions as api
from amqpflow.model.resources import STAMP
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.compare.diff import diff
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from amqpflow.rabbitmq.observe import observe, open_broker
from amqpflow.services.provisioning.planner import make_plan
from tests.brokers.management import Management
from tests.brokers.selection import BrokerUnderTest
from tests.topology_files import compiled

ARGUMENTS = (
    '{x-int: 1, x-text: "1", x-long: 5000000000, x-negative: -7, x-float: 2.5, x-whole: 1.0, x-yes: true, '
    'x-word: "true", x-empty: "", x-list: [1, "1", 2.5, {deep: [true]}], x-table: {b: 1, a: {c: "x"}}}'
)
SHOP = f"""\
version: 1
name: shop
retry_policies:
  s: {{delays: [5s, 30s]}}
exchanges:
  events: {{type: topic, arguments: {ARGUMENTS}}}
  by.header: {{type: headers, alternate_exchange: lost}}
  lost: {{type: fanout}}
queues:
  orders:
    retry: s
    arguments: {ARGUMENTS}
    limits: {{max_length: 1000, max_length_bytes: 1GiB}}
    bindings:
      - {{exchange: by.header, arguments: {ARGUMENTS}}}
      - {{exchange: by.header, arguments: {{x-match: any, kind: mail}}}}
      - {{exchange: by.header, arguments: {{x-match: all, kind: mail}}}}
      - {{exchange: events, routing_key: "#"}}
      - {{exchange: events, routing_key: "a b/c%2Fd,e+f"}}
      - {{exchange: lost}}
  plain:
    type: classic
    retry: s
    max_priority: 10
    limits: {{max_length: 5}}
    tiers: {{type: quorum}}
"""


def shop(vhost: BrokerAddress, text: str = SHOP) -> CompiledTopology:
    return replace(compiled(text), vhost=vhost.vhost)


def quiet(topology: CompiledTopology, vhost: BrokerAddress) -> None:
    """Neither plan nor drift has anything to say, by the management API and over AMQP alone."""
    found = asyncio.run(api.plan(topology, vhost))
    assert [str(each) for each in found.findings] == []
    assert found.changes == ()
    report = asyncio.run(api.drift(topology, vhost))
    assert report.drifts == ()
    without = replace(topology, desired=replace(topology.desired, policies={}))

    async def over_amqp() -> None:
        async with open_broker(vhost, use_management=False) as broker:
            assert (await make_plan(without, broker)).nothing_to_do

    asyncio.run(over_amqp())


def apply(topology: CompiledTopology, vhost: BrokerAddress) -> None:
    assert asyncio.run(api.apply(topology, vhost)).complete


def test_what_was_applied_is_read_back_as_it_was_written(vhost: BrokerAddress) -> None:
    apply(shop(vhost), vhost)
    quiet(shop(vhost), vhost)


@pytest.mark.parametrize("default", ["classic", "quorum"])
def test_the_default_queue_type_of_the_virtual_host_changes_nothing(
    broker: BrokerUnderTest, vhost: BrokerAddress, default: str
) -> None:
    broker.management.put("vhosts", vhost.vhost, body={"default_queue_type": default})
    apply(shop(vhost), vhost)
    quiet(shop(vhost), vhost)


def test_a_classic_queue_declared_without_its_type_is_classic(vhost: BrokerAddress) -> None:
    """From 4.0 on RabbitMQ adds x-queue-type to what was declared without (fact 7.13)."""
    topology = shop(vhost)
    arguments = {k: v for k, v in topology.desired.queues["plain"].arguments.items() if k != "x-queue-type"}
    declare_by_http(vhost, "plain", arguments)
    apply(topology, vhost)
    quiet(topology, vhost)


def test_what_was_declared_with_numbers_of_other_sizes_is_the_same(vhost: BrokerAddress) -> None:
    """HTTP makes each number a long, and the order of keys another one."""
    topology = shop(vhost)
    for queue in topology.desired.queues.values():
        declare_by_http(vhost, queue.name, dict(reversed(queue.arguments.items())))
    apply(topology, vhost)
    quiet(topology, vhost)


def test_a_policy_written_by_hand_with_the_same_values_is_the_same(vhost: BrokerAddress) -> None:
    topology = shop(vhost)
    for policy in topology.desired.policies.values():
        body = {
            "priority": policy.priority,
            "definition": dict(reversed(policy.definition.items())),
            "apply-to": policy.apply_to,
            "pattern": policy.pattern,
        }
        Management(vhost).put("policies", vhost.vhost, policy.name, body=body)
    apply(topology, vhost)
    quiet(topology, vhost)


def test_a_number_and_its_text_are_not_the_same(vhost: BrokerAddress) -> None:
    """RabbitMQ compares neither in arguments that it does not know (fact 7.2), so the plan does."""
    apply(shop(vhost), vhost)
    other = shop(vhost, SHOP.replace("x-int: 1", 'x-int: "1"').replace("x-whole: 1.0", "x-whole: 1"))
    differences = {str(each.difference) for each in asyncio.run(api.plan(other, vhost)).refusals}
    assert differences >= {
        'x-int is 1 on the broker, the file says "1"',
        "x-whole is 1.0 on the broker, the file says 1",
    }


def test_other_peoples_objects_are_not_drift(vhost: BrokerAddress) -> None:
    """Exclusive, auto-delete, server-named and durable queues, exchanges, bindings and policies of applications."""
    apply(shop(vhost), vhost)
    with other_people(vhost):
        quiet(shop(vhost), vhost)

        async def hidden_in_the_plan() -> None:
            async with open_broker(vhost) as broker:
                seen = await observe(shop(vhost), broker)
                assert len(seen.state.queues) > len(shop(vhost).desired.queues)
                assert diff(shop(vhost), seen).notes == shop(vhost).notes

        asyncio.run(hidden_in_the_plan())


def declare_by_http(vhost: BrokerAddress, name: str, arguments: dict[str, Any]) -> None:
    assert arguments[STAMP] == "shop"
    Management(vhost).put("queues", vhost.vhost, name, body={"durable": True, "arguments": arguments})


@contextmanager
def other_people(vhost: BrokerAddress) -> Iterator[None]:
    """Applications at work: their connection is open while the plan is made."""
    management = Management(vhost)
    policy = {"pattern": "^amq\\.gen", "definition": {"expires": 60000}, "apply-to": "queues", "priority": 3}
    management.put("policies", vhost.vhost, "applications", body=policy)

    async def declare(connection: Any) -> None:
        channel = await connection.admin_channel()
        named = await channel.queue_declare("", exclusive=True)
        await channel.queue_bind(named.queue, "events", "orders.*")  # listens to an exchange of ours
        await channel.queue_bind(named.queue, "amq.topic", "#")
        await channel.queue_declare("app.exclusive", exclusive=True)
        await channel.queue_declare("app.gone.with.its.consumer", auto_delete=True)
        await channel.basic_consume("app.gone.with.its.consumer", no_ack=True, consumer_callback=_ignore)
        await channel.queue_declare("app.durable", durable=True, arguments={"x-max-length": 3})
        await channel.exchange_declare("app.events", exchange_type="topic", auto_delete=True)
        await channel.queue_bind("app.durable", "app.events", "x")
        await channel.queue_bind("app.durable", "by.header", "", arguments={"kind": "mail"})
        await channel.exchange_bind("app.events", "events", "#")

    with asyncio.Runner() as runner:
        connection = runner.run(connect(vhost, name="somebody else"))
        try:
            runner.run(declare(connection))
            yield
        finally:
            runner.run(connection.close())


async def _ignore(_: object) -> None:
    return None
