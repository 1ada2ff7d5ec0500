"""A service with its topology in a directory, and `amqpflow run` as a process, for tests of it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from amqpflow import Topology
from amqpflow.rabbitmq.address import BrokerAddress
from tests import commands
from tests.shop import Shop
from tests.topologies import connected
from tests.waiting import until

SHOP = """\
version: 1
name: shop
vhost: ${AMQPFLOW_VHOST:?the virtual host of the test}
retry_policies:
  quick: {delays: [100ms]}
queues:
  orders: {retry: quick}
"""

SERVICE = """\
import asyncio
import time
from pathlib import Path

from amqpflow import Consumer, Message, Park, Retry

consumer = Consumer("shop.yaml")
other = Consumer("shop.yaml")
not_a_consumer = 7


@consumer.handler("orders", concurrency=1, prefetch=5)
async def handle(message: Message) -> None:
    print("started", message.message_id, flush=True)
    if message.message_id == "secret":
        raise Park(f"no account for {message.message_id}")
    while not Path("go").exists():  # until the test lets it
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)  # what the service said before that is done by then
    print("finished", message.message_id, flush=True)


buggy = Consumer("shop.yaml")


@buggy.handler("orders")
async def charge(message: Message) -> None:
    total(message.json())


def total(order):
    return order["total"] + gateway.fee(order)  # noqa: F821 - a bug


@other.handler("orders")
def in_a_thread(message: Message) -> None:
    print("started", message.message_id, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A directory with a service and its topology."""
    (tmp_path / "shop.yaml").write_text(SHOP)
    (tmp_path / "service.py").write_text(SERVICE)
    (tmp_path / "broken.py").write_text("import amqpflow\n1 / 0\n")
    (tmp_path / "needs.py").write_text("import no_such_module\n")
    return tmp_path


def environment(address: BrokerAddress | None) -> dict[str, str]:
    return commands.environment(address, **({"AMQPFLOW_URL": address.url} if address else {"AMQPFLOW_VHOST": "v"}))


def command(*arguments: str) -> list[str]:
    return [*commands.AMQPFLOW, "run", *arguments]


class Run:
    """A running `amqpflow run`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            Thread(target=self._read, args=(process.stdout, self.out)),
            Thread(target=self._read, args=(process.stderr, self.err)),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        lines.extend(iter(stream.readline, ""))

    async def says(self, line: str) -> None:
        await until(lambda: f"{line}\n" in self.out or self._is_over())
        assert f"{line}\n" in self.out, "".join(self.err)

    def _is_over(self) -> bool:
        """It has ended, and all that it said was read."""
        return self.process.poll() is not None and not any(reader.is_alive() for reader in self._readers)

    async def ends(self, within: float = 60) -> int:
        """Return its exit code once it has ended, and all that it said was read."""
        code = int(await asyncio.to_thread(self.process.wait, within))
        await until(self._is_over)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def running(service: Path, address: BrokerAddress, *arguments: str) -> Iterator[Run]:
    process = subprocess.Popen(
        command(*arguments),
        cwd=service,
        env=environment(address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = Run(process)
    try:
        yield run
    finally:
        run.close()


def scenario(service: Path, address: BrokerAddress, steps: Any) -> None:
    """Put the topology on the broker and take the steps."""

    async def go() -> None:
        compiled = Topology.load(service / "shop.yaml", environ=environment(address)).compiled
        connection = await connected(address, compiled)
        try:
            await steps(Shop(address, compiled, connection))
        finally:
            await connection.close()

    asyncio.run(go())


def finished(service: Path, address: BrokerAddress | None, *arguments: str, **more: str) -> Any:
    return subprocess.run(
        command(*arguments),
        cwd=service,
        env={**environment(address), **more},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
