"""What leaves its queue, or is called restored, is on the disk by then: the file's bytes, and the file's name."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from amqpflow.model.properties import Properties
from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.loading.topology import no_topology
from amqpflow.services.parked import export_file
from amqpflow.services.parked.export import discard_parked, export_parked
from amqpflow.services.parked.restore import restore_parked
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import read_target
from tests.parked import publish

pytestmark = pytest.mark.one_broker


class Disk:
    """What survives the loss of power: by path, what `fsync` was told to keep."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.names: set[str] = set()
        self._sync = os.fsync

    def fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self.names |= {str(each) for each in path.iterdir()}
        else:
            self.sizes[str(path)] = os.fstat(descriptor).st_size
        self._sync(descriptor)

    def holds(self, path: Path) -> bool:
        """All that is in the file now, under its name."""
        return str(path) in self.names and self.sizes.get(str(path)) == path.stat().st_size


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    kept = Disk()
    monkeypatch.setattr(export_file.os, "fsync", kept.fsync)
    return kept


def test_a_message_is_acked_when_it_and_the_name_of_its_file_are_on_the_disk(
    vhost: BrokerAddress, tmp_path: Path, disk: Disk
) -> None:
    file, acked = tmp_path / "x.jsonl", []

    def at(step: str) -> None:
        if step == "ack":
            acked.append(len(file.read_text().splitlines()) - 1)
            assert disk.holds(file)

    async def go() -> None:
        async with open_broker(vhost) as broker:
            channel = await broker.connection.admin_channel()
            await channel.queue_declare("dead", durable=True, arguments={"x-queue-type": "classic"})
            await publish(broker.connection, "dead", *(Properties(message_id=f"m{n}") for n in range(30)))
            target = read_target(broker, no_topology(), (), ReadOptions(from_queues=("dead",)))
            report = await discard_parked(target, Selection(), str(file), on_step=at)
            assert (report.discarded, acked[-1]) == (30, 30)
            assert disk.holds(file), "with its last line"

    asyncio.run(go())


def test_a_restored_message_is_recorded_on_the_disk_before_more_are_published(
    vhost: BrokerAddress, tmp_path: Path, disk: Disk
) -> None:
    file, record, recorded = tmp_path / "x.jsonl", tmp_path / "x.jsonl.restored", []

    def at(step: str) -> None:
        if step == "recorded":
            recorded.append(len(record.read_bytes()))
            assert disk.holds(record)

    async def go() -> None:
        async with open_broker(vhost) as broker:
            channel = await broker.connection.admin_channel()
            await channel.queue_declare("dead", durable=True, arguments={"x-queue-type": "classic"})
            await publish(broker.connection, "dead", *(Properties(message_id=f"m{n}") for n in range(1200)))
            target = read_target(broker, no_topology(), (), ReadOptions(from_queues=("dead",)))
            await export_parked(target, Selection(), str(file))
            assert disk.names >= {str(file)}
            await discard_parked(target, Selection(), None)
            report = await restore_parked(broker, str(file), ReadOptions(), on_step=at)
            assert (report.restored, len(recorded) > 1, disk.holds(record)) == (1200, True, True)

    asyncio.run(go())
