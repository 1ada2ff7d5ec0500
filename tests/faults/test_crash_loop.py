"""A message that kills every worker is parked by RabbitMQ at its delivery limit, and those beside it are not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

from amqpflow.rabbitmq.address import BrokerAddress
from tests.faults.crash_loop import crash_loop_topology
from tests.shop import Shop
from tests.topologies import connected
from tests.waiting import until

GOOD = [f"good {number}" for number in range(30)]


def test_a_crash_looping_worker_parks_the_poison_message_and_not_its_neighbours(vhost: BrokerAddress) -> None:
    """
    Real processes, killed by SIGKILL in the handler. Whatever is unacked then is counted as well (fact 3.8): from its
    third crash on the message is handled alone, and its neighbours stay below the limit.
    """

    async def scenario() -> None:
        compiled = crash_loop_topology(vhost.vhost)
        scene = Shop(vhost, compiled, await connected(vhost, compiled))
        await scene.publish("poison", *GOOD)
        command = [sys.executable, "-m", "tests.faults.crash_loop", vhost.url, vhost.vhost]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
        try:
            await until(lambda: scene.depth("orders.parking"), timeout=60)
            await until(lambda: _is_empty(scene))
        finally:
            process.terminate()
            said = await asyncio.to_thread(lambda: process.communicate(timeout=30)[0])
        assert process.returncode == 0
        scene.done = sorted(set(said.splitlines()))
        parked = [str(each.header.properties.message_id) for each in await scene.take("orders.parking")]
        assert parked == ["poison"]
        assert Counter(scene.done) == Counter(GOOD)
        await scene.connection.close()

    asyncio.run(scenario())


async def _is_empty(scene: Shop) -> bool:
    """Nothing is ready, and nobody has taken what is not settled: what is unacked when all is over comes back."""
    depths = []
    for _ in range(5):
        depths.append(await scene.depth("orders"))
        await asyncio.sleep(0.2)
    return not any(depths)
