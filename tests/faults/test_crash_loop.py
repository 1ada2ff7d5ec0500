"""A message that kills every worker is parked by RabbitMQ at its delivery limit, and those beside it are not."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from amqpflow.rabbitmq.address import BrokerAddress
from tests.faults.crash_loop import crash_loop_topology
from tests.shop import Shop
from tests.topologies import connected
from tests.waiting import until

GOOD = [f"good {number}" for number in range(30)]


def test_a_crash_looping_worker_parks_the_poison_message_and_not_its_neighbours(vhost: BrokerAddress) -> None:
    """Real processes, killed by SIGKILL in the handler. Whatever is unacked then is counted as well (fact 3.8): from
    its third crash on the message is handled alone, and its neighbours stay below the limit.
    """

    async def scenario() -> None:
        compiled = crash_loop_topology(vhost.vhost)
        scene = Shop(vhost, compiled, await connected(vhost, compiled))
        await scene.publish("poison", *GOOD)
        command = [sys.executable, "-m", "tests.faults.crash_loop", vhost.url, vhost.vhost]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE
        )
        said: set[str] = set()
        listening = asyncio.create_task(_listen(process, said))
        try:
            await until(lambda: scene.depth("orders.parking"), timeout=120)
            await until(lambda: said == set(GOOD))
            await until(lambda: _is_empty(scene))
        finally:
            process.terminate()
            await asyncio.wait_for(listening, 60)
            await process.wait()
        assert process.returncode == 0
        parked = [str(each.header.properties.message_id) for each in await scene.take("orders.parking")]
        assert parked == ["poison"]
        assert said == set(GOOD)
        await scene.connection.close()

    asyncio.run(scenario())


async def _listen(process: asyncio.subprocess.Process, said: set[str]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        said.add(line.decode().rstrip())


async def _is_empty(scene: Shop) -> bool:
    """Nothing is ready, and nobody has taken what is not settled: what is unacked when all is over comes back."""
    depths = []
    for _ in range(5):
        depths.append(await scene.depth("orders"))
        await asyncio.sleep(0.2)
    return not any(depths)
