"""Every topology file that is shipped can be applied, and applying it again finds nothing to do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from amqpflow import Topology
from amqpflow.api import functions as api
from amqpflow.errors import RefusedError
from amqpflow.model.names import applying_lock
from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.admin import Admin
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.provisioning.applier import ApplyRun
from amqpflow.services.provisioning.planner import make_plan
from tests.brokers.management import Management
from tests.brokers.selection import BrokerUnderTest

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("topologies/*.yaml"), *ROOT.glob("examples/*.yaml"), *ROOT.glob("examples/*/*.yaml")])


def compiled(file: Path, vhost: BrokerAddress) -> CompiledTopology:
    return replace(Topology.load(file, environ={}).compiled, vhost=vhost.vhost)


def provide(topology: CompiledTopology, vhost: BrokerAddress) -> None:
    """What the file takes for granted."""
    for name in topology.required_exchanges:
        Management(vhost).put("exchanges", vhost.vhost, name, body={"type": "topic", "durable": True})
    for routes in topology.routes.values():
        tiers = (routes.parking_queue, *(tier.queue for tier in routes.tiers)) if routes.external else ()
        for name in (routes.queue, *tiers) if routes.existing or routes.external else ():
            body = {"durable": True, "arguments": {"x-queue-type": routes.queue_type}}
            Management(vhost).put("queues", vhost.vhost, name, body=body)
        for name in (routes.retry_exchange, routes.parking_exchange) if routes.external else ():
            Management(vhost).put("exchanges", vhost.vhost, name, body={"type": "direct", "durable": True})


def unfit(topology: CompiledTopology, broker: BrokerUnderTest) -> bool:
    """Whether it needs RabbitMQ 4.3."""
    return bool(topology.native_queues) and broker.version < (4, 3)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_shipped_topology_is_applied_once(vhost: BrokerAddress, broker: BrokerUnderTest, file: Path) -> None:
    topology = compiled(file, vhost)
    provide(topology, vhost)
    if unfit(topology, broker):
        with pytest.raises(RefusedError, match="nothing was done"):
            asyncio.run(api.apply(topology, vhost))
        return
    report = asyncio.run(api.apply(topology, vhost))
    assert report.complete
    again = asyncio.run(api.plan(topology, vhost))
    assert again.changes == ()
    assert again.findings == ()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_over_amqp_alone_it_is_the_same(vhost: BrokerAddress, broker: BrokerUnderTest, file: Path) -> None:
    topology = compiled(file, vhost)
    provide(topology, vhost)

    async def apply() -> None:
        async with open_broker(vhost, use_management=False) as broker:
            await ApplyRun(await make_plan(topology, broker)).run(Admin(broker, applying_lock(topology.name)))
            assert (await make_plan(topology, broker)).nothing_to_do

    if unfit(topology, broker) or topology.desired.policies:
        with pytest.raises(RefusedError, match="nothing was done"):
            asyncio.run(apply())
        return
    asyncio.run(apply())
    found = asyncio.run(api.plan(topology, vhost)).changes
    # bindings cannot be read over AMQP, nor recorded: the management API makes up for it
    assert [each for each in found if each.kind != "manifest"] == []
