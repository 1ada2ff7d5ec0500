"""`amqpflow drift`: every way in which a broker can be changed behind a file's back is seen and named, by attribute."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from amqpflow.cli.render.drift import drift_text
from amqpflow.model.resources import BrokerState
from amqpflow.planning.compare.diff import diff
from amqpflow.planning.reports.drift import drift
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from tests.brokers.management import Management
from tests.cli.test_apply import SHOP, WITHOUT_POLICIES, apply, user
from tests.cli.test_plan import amqpflow, schema
from tests.plans import after, observation
from tests.topology_files import compiled


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    file = tmp_path / "topology.yaml"
    file.write_text(SHOP)
    return file


def bind(vhost: BrokerAddress, exchange: str, queue: str, key: str) -> None:
    async def once() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            channel = await connection.admin_channel()
            await channel.queue_bind(queue, exchange, key)
            await channel.close()

    asyncio.run(once())


def test_each_change_on_the_broker_is_named(vhost: BrokerAddress, shop: Path) -> None:
    apply(shop, vhost)
    assert amqpflow("drift", shop, address=vhost).code == 0
    management = Management(vhost)
    (policy,) = management.get("policies", vhost.vhost)
    body = {**policy, "definition": {**policy["definition"], "max-length": 7}}
    management.put("policies", vhost.vhost, policy["name"], body=body)
    management.delete("queues", vhost.vhost, "orders.retry.5s")
    management.delete("queues", vhost.vhost, "audit.parking")
    other = {"durable": True, "arguments": {"x-queue-type": "classic", "x-amqpflow-topology": "shop"}}
    management.put("queues", vhost.vhost, "audit.parking", body=other)
    bind(vhost, "amq.topic", "orders", "x.#")
    stamped = {"durable": True, "arguments": {"x-amqpflow-topology": "shop"}}
    management.put("queues", vhost.vhost, "orders.retry.9s", body=stamped)
    theirs = {"pattern": "audit.parking", "definition": {"max-length": 1}, "apply-to": "queues", "priority": 1}
    management.put("policies", vhost.vhost, "theirs", body=theirs)
    result = amqpflow("drift", shop, "-o", "json", address=vhost)
    assert result.code == 2
    found = json.loads(result.out)
    Draft202012Validator.check_schema(schema("drift"))
    Draft202012Validator(schema("drift")).validate(found)
    drifts = {(each["what"], each["object"]): each["attributes"] for each in found["drifts"]}
    assert drifts.keys() == {
        ("missing", "queue orders.retry.5s"),
        ("missing", "binding shop.retry -> orders.retry.5s (orders.retry.5s)"),
        ("missing", "binding shop.parking -> audit.parking (audit.parking)"),
        ("changed", f"policy {policy['name']}"),
        ("changed", "queue audit.parking"),
        ("added", "queue orders.retry.9s"),
        ("added", "binding amq.topic -> orders (x.#)"),
        ("foreign", "queue audit.parking"),
    }
    assert drifts["changed", f"policy {policy['name']}"] == [{"name": "max-length", "file": 1000, "broker": 7}]
    assert {"name": "x-queue-type", "file": "quorum", "broker": "classic"} in drifts["changed", "queue audit.parking"]
    text = amqpflow("drift", shop, address=vhost)
    assert text.code == 2
    assert "max-length: 7 on the broker, 1000 in the file" in text.out
    assert "Drift: 3 missing, 2 changed, 2 added, 1 foreign; " in text.out


def test_over_amqp_alone_it_says_what_it_cannot_see(vhost: BrokerAddress, shop: Path) -> None:
    shop.write_text(WITHOUT_POLICIES)
    apply(shop, vhost)
    with user(vhost) as untagged:  # with no tag for the management API
        alone = replace(untagged, management_url=None)
        result = amqpflow("drift", shop, address=alone)
        assert result.code == 4
        assert "Not seen: 7 bindings of the file: they cannot be read over AMQP" in result.out
        assert amqpflow("drift", shop, "--partial", address=alone).code == 0
        Management(vhost).delete("queues", vhost.vhost, "orders.retry.5s")
        assert amqpflow("drift", shop, "--partial", address=alone).code == 2


def test_nothing_seen_is_not_taken_for_nothing_there() -> None:
    topology = compiled(SHOP.replace("vhost: ${AMQPFLOW_VHOST:?the virtual host of the test}\n", ""))
    there = after(BrokerState(), diff(topology, observation()).changes)
    report = drift(
        diff(topology, replace(observation(replace(there, bindings=())), complete=False, source="no answer"))
    )
    assert report.drifts == ()
    assert [each.partition(":")[0] for each in report.unseen] == [
        "7 bindings of the file",
        "1 policy of the file",
        "owners, further bindings and foreign policies",
    ]
    text = drift_text(report, color=False)
    assert "Not seen: 7 bindings of the file: they cannot be read over AMQP (no answer)" in text
    assert text.endswith("No drift of what can be seen: 9 objects are as the file says.")


def test_an_empty_virtual_host_with_a_thousand_queues_is_readable() -> None:
    queues = "".join(f"  q{number}: {{retry: none}}\n" for number in range(1000))
    report = drift(diff(compiled(f"version: 1\nname: shop\nqueues:\n{queues}"), observation()))
    text = drift_text(report, color=False, width=80)
    assert len(report.drifts) == 4002
    assert len(text.splitlines()) < 20
    assert max(map(len, text.splitlines())) <= 80


def test_a_dozen_alike_have_a_line_each() -> None:
    queues = "".join(f"  q{number}: {{retry: none}}\n" for number in range(6))
    report = drift(diff(compiled(f"version: 1\nname: shop\nqueues:\n{queues}"), observation()))
    lines = [line.strip() for line in drift_text(report, color=False, width=80).splitlines()]
    assert [line for line in lines if line.startswith("- queue")] == [
        *(f"- queue q{number}.parking" for number in range(6)),
        *(f"- queue q{number}" for number in range(6)),
    ]
