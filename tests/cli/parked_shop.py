"""A topology file and parked messages for tests of the commands that read and replay them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amqpflow import Topology
from amqpflow.model.message import Delivery
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from tests.parked import parking_publish
from tests.topologies import declare

SHOP = """\
version: 1
name: shop
vhost: ${AMQPFLOW_VHOST:?the virtual host of the test}
retry_policies:
  standard: {delays: [5s, 1m30s]}
queues:
  orders: {retry: standard}
  mail: {retry: standard, parking: {queue: shared.parked}}
  audit: {retry: none, parking: {queue: shared.parked}}
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def write_shop(directory: Path) -> Path:
    file = directory / "shop.yaml"
    file.write_text(SHOP)
    return file


def fill(file: Path, address: BrokerAddress, deliveries: Sequence[Delivery], *, error: str = "ValueError") -> None:
    """Put the topology on the broker, and park the deliveries as consumers do."""

    async def go() -> None:
        compiled = Topology.load(file, environ={"AMQPFLOW_VHOST": address.vhost}).compiled
        async with await connect(address, name="amqpflow test") as connection:
            await declare(connection, compiled)
            channel = await connection.open_channel()
            await asyncio.gather(
                *(channel.publish(parking_publish(compiled, each, error=error)) for each in deliveries)
            )
            await channel.close()

    asyncio.run(go())


def environment(address: BrokerAddress) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AMQPFLOW_", "RABBITMQ_", "CLOUDAMQP_"))}
    return {**clean, "AMQPFLOW_VHOST": address.vhost, "COLUMNS": "120"}


def arguments(command: str, file: Path, address: BrokerAddress, *options: str) -> list[str]:
    management = address.management_candidates()[-1]
    return [*command.split(), str(file), *options, "--url", address.url, "--management-url", management]


def amqpflow(command: str, file: Path, address: BrokerAddress, *options: str) -> Result:
    """Run a command in a process of its own, without a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "amqpflow", *arguments(command, file, address, *options)],
        env=environment(address),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return Result(done.returncode, done.stdout, done.stderr)
