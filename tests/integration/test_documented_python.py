"""The Python of the how-to pages does what they say."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from amqpflow import Topology
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from tests.commands import environment
from tests.parked import delivered, depth, park
from tests.topologies import declare

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "replay.md"
TOPOLOGY = """\
version: 1
name: documented
vhost: {vhost}
retry_policies: {{standard: {{delays: [5s]}}}}
queues: {{orders.payment: {{retry: standard}}}}
"""


@pytest.mark.one_broker
def test_parked_messages_are_listed_and_replayed_from_python(vhost: BrokerAddress, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    file = tmp_path / "topology.yaml"
    file.write_text(TOPOLOGY.format(vhost=vhost.vhost))
    compiled = Topology.load(file).compiled

    async def fill() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            await declare(connection, compiled)
            await park(connection, compiled, [delivered("orders.payment", message_id=f"m{n}") for n in range(3)])

    async def left() -> int:
        async with await connect(vhost, name="amqpflow test") as connection:
            return await depth(connection, compiled.routes["orders.payment"].parking_queue)

    asyncio.run(fill())
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env={
            **environment(vhost),
            "AMQPFLOW_URL": vhost.url,
            "AMQPFLOW_MANAGEMENT_URL": vhost.management_candidates()[-1],
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 True\n3 True None\n", "")
    assert asyncio.run(left()) == 0
