"""Every topology that is shipped is taken by every RabbitMQ, and a second apply finds nothing to do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from amqpflow.api.functions import apply, plan
from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.loading.topology import Topology

FILES = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))


def load(file: Path) -> CompiledTopology:
    return Topology.load(file, environ={}).compiled


@pytest.mark.parametrize("file", [file for file in FILES if not load(file).required_queues], ids=lambda file: file.stem)
def test_a_shipped_topology_is_applied_as_it_was_compiled(file: Path, vhost: BrokerAddress) -> None:
    topology = load(file)

    async def twice() -> tuple[int, int]:
        report = await apply(topology, vhost)
        again = await plan(topology, vhost)
        return len(report.done), len(again.changes)

    done, changes = asyncio.run(twice())
    assert done > 0
    assert changes == 0
