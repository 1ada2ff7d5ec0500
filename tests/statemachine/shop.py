"""The broker that the state machine works on: three work queues, the versions of their file, and who is at work."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from amqpflow import Topology
from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection, connect
from tests.statemachine.operators import Operator, Operators
from tests.statemachine.places import Places
from tests.topologies import declare

T = TypeVar("T")

OWN = {"a": "a.parking", "b": "b.parking", "c": "c.parking"}
FILES: Mapping[str, Mapping[str, str]] = {
    "own": OWN,
    "shared": dict.fromkeys(OWN, "shared.parking"),
    "partly": {"a": "shared.parking", "b": "shared.parking", "c": "c.parking"},
    "fewer": {"a": "a.parking", "b": "b.parking"},
}
"""The versions of the topology file: work queue -> parking queue."""
WORK = tuple(OWN)
PARKING = (*OWN.values(), "shared.parking")
ELSEWHERE = "elsewhere"  #: a queue that is in no file
QUEUES = (*WORK, *PARKING, ELSEWHERE)

_CONNECTIONS = 2  #: of an operator, at most: one reads, one publishes


@dataclass(kw_only=True)
class Shop:
    """A broker with the queues of all files, and the operators who work on it."""

    address: BrokerAddress
    operators: Operators
    connection: Connection
    files: Mapping[str, CompiledTopology]
    runner: asyncio.Runner
    directory: Path  #: for journals and exports
    at_work: list[Operator] = field(default_factory=list)  #: their connections may still be open

    def __post_init__(self) -> None:
        self.places = Places(self.connection)

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self.runner.run(coroutine)

    def rest(self) -> None:
        """Return when the operators are gone and the broker has done all that they asked for."""
        for operator in self.at_work:
            operator.leave()
            self.do(self.places.gone(operator.name, _CONNECTIONS))
        if self.at_work:
            self.do(self.places.settled(QUEUES))
        self.at_work.clear()


@contextmanager
def open_shop(vhost: BrokerAddress, directory: Path) -> Iterator[Shop]:
    """Declare the queues in an empty virtual host, and start the server of the operators."""
    texts = directory / "files"
    texts.mkdir()
    for name, parking in FILES.items():
        (texts / f"{name}.yaml").write_text(_text_of(parking))
    files = {name: Topology.load(texts / f"{name}.yaml").compiled for name in FILES}
    with asyncio.Runner() as runner, Operators(texts) as operators:
        connection = runner.run(connect(vhost, name="amqpflow test"))
        try:
            runner.run(_declare(connection, files))
            yield Shop(
                address=vhost,
                operators=operators,
                connection=connection,
                files=files,
                runner=runner,
                directory=directory,
            )
        finally:
            runner.run(connection.close())


def _text_of(parking: Mapping[str, str]) -> str:
    queues = "".join(f"  {queue}: {{retry: std, parking: {{queue: {parked}}}}}\n" for queue, parked in parking.items())
    return f"version: 1\nname: shop\nretry_policies: {{std: {{delays: [1h]}}}}\nqueues:\n{queues}"


async def _declare(connection: Connection, files: Mapping[str, CompiledTopology]) -> None:
    await declare(connection, files["own"])
    shared, channel = files["shared"].desired, await connection.admin_channel()
    parking = shared.queues["shared.parking"]
    await channel.queue_declare(parking.name, durable=True, arguments=dict(parking.arguments))
    await channel.queue_bind(parking.name, "shop.parking", parking.name)
    await channel.queue_declare(ELSEWHERE, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.close()
