"""What others imported by hand, with keys left out or of the wrong type, stops no other command."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest

from amqpflow import Consumer, Message, Publisher, RefusedError, Topology, adopt
from amqpflow.api import functions as api
from amqpflow.errors import BrokerError, NotAppliedError
from amqpflow.model.resources import STAMP
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.status import StatusReader
from tests.brokers.management import Management
from tests.waiting import until

SHOP = """
version: 1
name: shop
retry_policies:
  standard: {delays: [100ms]}
exchanges:
  orders.events: {type: topic}
queues:
  orders:
    retry: standard
    bindings: [{exchange: orders.events, routing_key: "#"}]
"""
EXCHANGE = {"type": "direct", "durable": True, "auto_delete": False, "internal": False, "arguments": {}}
BINDING = {"source": "e", "destination": "theirs", "destination_type": "queue", "routing_key": "k", "arguments": {}}
POLICY = {"pattern": "^theirs$", "definition": {"max-length": 10}, "priority": 0, "apply-to": "queues"}
ABSENT = object()
ODD = (ABSENT, None, "false", 7, [], {}, [1])


def without(entry: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {**{name: each for name, each in entry.items() if name != key}, **({} if value is ABSENT else {key: value})}


def imported(vhost: BrokerAddress) -> list[str]:
    """Import each odd object that this release takes; return what it took."""
    management = Management(vhost)
    variants: dict[str, dict[str, Any]] = {"queue": {"queues": [{"name": "theirs", "durable": True}]}}
    for number, value in enumerate(ODD):
        for key in ("durable", "auto_delete", "internal", "arguments"):
            entry = {"name": f"theirs.{key}.{number}", **without(EXCHANGE, key, value)}
            variants[f"exchange {key} {number}"] = {"exchanges": [entry]}
        for key in ("priority", "apply-to"):
            policy = {"name": f"theirs.{key}.{number}", **without(POLICY, key, value)}
            variants[f"policy {key} {number}"] = {"policies": [policy]}
        for key in ("routing_key", "arguments"):
            if value != {}:  # RabbitMQ takes it, and cannot list it
                variants[f"binding {key} {number}"] = {"bindings": [without(BINDING, key, value)]}
    management.put("exchanges", vhost.vhost, "e", body={"type": "direct", "durable": True})
    taken = []
    for name, definitions in variants.items():
        try:
            management.call("POST", "definitions", vhost.vhost, body=definitions)
            taken.append(name)
        except AssertionError:  # the release refuses it
            continue
    return taken


def shop(vhost: BrokerAddress, tmp_path: Path) -> Topology:
    path = tmp_path / "shop.yaml"
    path.write_text(f"{SHOP}vhost: {vhost.vhost}\n")
    return Topology.load(path)


def test_odd_objects_of_others_change_nothing(vhost: BrokerAddress, tmp_path: Path) -> None:
    topology = shop(vhost, tmp_path)
    address = vhost

    async def scenario() -> None:
        assert (await api.apply(topology, address)).complete
        taken = await asyncio.to_thread(imported, vhost)
        assert {"exchange auto_delete 1", "exchange auto_delete 2", "binding routing_key 1"} <= set(taken)
        planned = await api.plan(topology, address)
        assert planned.complete
        assert planned.nothing_to_do
        assert [str(each) for each in planned.findings] == []
        assert (await api.drift(topology, address)).drifts == ()
        assert (await api.apply(topology, address)).done == ()
        assert (await api.explain(topology, "orders", address)).queue == "orders"
        assert (await api.plan(topology, address, prune=True)).nothing_to_do
        async with open_broker(address) as broker:
            status = await StatusReader(broker, topology.compiled).read()
            assert {each.code for each in status.alerts} <= {"no-consumer"}
        done = []

        async def handle(message: Message) -> None:
            done.append(message.body)

        consumer = Consumer(topology, vhost.url, management_url=vhost.management_candidates()[-1])
        consumer.add_handler("orders", handle)
        async with consumer, Publisher(vhost.url) as publisher:
            await publisher.publish(b"x", exchange="orders.events", routing_key="any")
            await until(lambda: done == [b"x"])
        assert (await api.destroy(topology, address, allow=["delete"])).complete
        left = {each["name"] for each in Management(vhost).get("exchanges", vhost.vhost)}
        assert {f"theirs.auto_delete.{number}" for number in (1, 2)} <= left

    asyncio.run(scenario())


@pytest.mark.parametrize(("value", "shown"), [("undefined", '"undefined"'), ("false", '"false"'), (None, "not set")])
def test_one_that_the_file_declares_is_refused_by_its_key(
    vhost: BrokerAddress, tmp_path: Path, value: Any, shown: str
) -> None:
    """Not taken for absent, nor for false: RabbitMQ would answer a redeclare with 406."""
    topology = shop(vhost, tmp_path)
    entry = {"name": "orders.events", **EXCHANGE, "type": "topic", "auto_delete": value}
    Management(vhost).call("POST", "definitions", vhost.vhost, body={"exchanges": [entry]})
    said = f"exchange orders.events: auto_delete is {shown} on the broker, the file says false"

    async def scenario() -> None:
        (refusal,) = (await api.plan(topology, vhost)).refusals
        assert said in str(refusal)
        drifts = {each.object: each.message for each in (await api.drift(topology, vhost)).drifts}
        assert f"auto_delete is {shown} on the broker" in drifts["exchange orders.events"]
        with pytest.raises(RefusedError) as refused:
            await api.apply(topology, vhost)
        assert any(said in each for each in refused.value.problems)
        with pytest.raises(RefusedError) as refused:
            await adopt(topology, "exchange", ["orders.events"], vhost)
        assert any("auto_delete is" in each for each in refused.value.problems)
        assert Management(vhost).get("queues", vhost.vhost) == []

    asyncio.run(scenario())


def test_a_consumer_names_an_odd_object_of_its_own(vhost: BrokerAddress, tmp_path: Path) -> None:
    topology = shop(vhost, tmp_path)

    async def scenario() -> None:
        await api.apply(topology, vhost)
        management = Management(vhost)
        entry = {"name": "shop.retry", **EXCHANGE, "auto_delete": "undefined", "arguments": {STAMP: "shop"}}
        management.delete("exchanges", vhost.vhost, "shop.retry")
        management.call("POST", "definitions", vhost.vhost, body={"exchanges": [entry]})

        async def handle(message: Message) -> None: ...

        consumer = Consumer(topology, vhost.url, management_url=vhost.management_candidates()[-1])
        consumer.add_handler("orders", handle)
        with pytest.raises(NotAppliedError) as refused:
            await consumer.start()
        assert any('exchange shop.retry: auto_delete is "undefined"' in each for each in refused.value.problems)

    asyncio.run(scenario())


@pytest.mark.one_broker
@pytest.mark.releases(">=4")
def test_a_list_that_rabbitmq_cannot_make_is_said_to_be_so(vhost: BrokerAddress, tmp_path: Path) -> None:
    """A name that is not UTF-8, which only the HTTP API lets anyone create: 3.10 lists it, later releases fail."""
    management = Management(vhost)
    url = f"{management.base}/api/queues/{vhost.vhost}/q%FF"
    headers = {"Authorization": management._authorization, "Content-Type": "application/json"}
    request = Request(url, data=json.dumps({"durable": True}).encode(), method="PUT", headers=headers)
    from tests.brokers.management import _OPENER

    with _OPENER.open(request, timeout=30):
        pass
    with pytest.raises(BrokerError, match=r"failed on (queues|bindings) .* \(HTTP 500\)") as failed:
        asyncio.run(api.plan(shop(vhost, tmp_path), vhost))
    assert "not text" in failed.value.hint
