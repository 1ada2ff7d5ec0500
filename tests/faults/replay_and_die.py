"""Replay, or list, in a process that kills itself: `replay_and_die.py URL MANAGEMENT_URL POINT TIMES JOURNAL KIND`.

POINT is a step of the replay, or one that is seen here alone: `publish.sent` and `ack.sent` are reached when the frames
were handed to the socket and nothing has answered them, `nack.sent` likewise while everything is given back,
`journal.written` when a line is written and not on disk yet, `journal.torn` when half of it is, and `listing` in the
middle of a listing. The process dies when it comes there for the TIMES-th time. JOURNAL is a directory, or empty.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq import connection
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.loading import durable_file
from amqpflow.services.replaying import sending
from amqpflow.services.replaying.journal_files import Journals
from amqpflow.services.replaying.outbox import ReplayOutbox
from amqpflow.services.replaying.replayer import replay_parked
from tests.parked import list_parked
from tests.topologies import topology

POINTS = (
    "journal.before",
    "journal.torn",
    "journal.written",
    "journal.after",
    "publish.before",
    "publish.after",
    "publish.sent",
    "publish.confirmed",
    "ack.before",
    "ack.after",
    "ack.sent",
    "requeue.before",
    "nack.sent",
    "requeue.after",
)
WINDOW = 50  #: of the process that dies
CONNECTIONS = 2  #: of it, at most: one reads, one publishes
ONCE = ("requeue", "nack")  #: there is one requeueing in each run


def shared_shop(vhost: str, kind: str = "quorum") -> CompiledTopology:
    """Two work queues that park in one queue."""
    compiled = topology({"a": [1000], "b": [1000]}, vhost=vhost, parking="shared.parking")
    if kind == "quorum":
        return compiled
    parking = replace(compiled.desired.queues["shared.parking"], arguments={"x-queue-type": "classic"})
    queues = {**compiled.desired.queues, "shared.parking": parking}
    return replace(compiled, desired=replace(compiled.desired, queues=queues))


def name_of(process: int) -> str:
    """Under which a process that dies marks its connections."""
    return f"dying-{process}"


class Death:
    """Comes at the chosen point."""

    def __init__(self, point: str, times: int) -> None:
        self.point = point
        self.left = times

    def step(self, name: str) -> None:
        if name == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, channel: Any) -> None:
        """See what a channel has handed to the socket."""
        send, ack, nack, write = ReplayOutbox.send, channel.ack, channel.nack, os.write
        watching: set[asyncio.Task[None]] = set()

        async def sent(self_: Any, point: str) -> None:
            await self_.drain()
            self.step(point)

        def soon(self_: Any, point: str) -> None:
            if self.point == point:
                watching.add(asyncio.get_running_loop().create_task(sent(self_, point)))

        async def send_watched(self_: ReplayOutbox, pendings: Any) -> None:
            soon(self_._outbox._channel, "publish.sent")  # when they have been posted
            await send(self_, pendings)

        def ack_watched(self_: Channel, *arguments: Any, **options: Any) -> bool:
            done = ack(self_, *arguments, **options)
            soon(self_, "ack.sent")
            return bool(done)

        def nack_watched(self_: Channel, *arguments: Any, **options: Any) -> bool:
            done = nack(self_, *arguments, **options)
            soon(self_, "nack.sent")
            return bool(done)

        def write_watched(fd: int, data: Any) -> int:
            if self.point == "journal.torn" and self.left == 1:
                write(fd, data[: len(data) // 2])
            self.step("journal.torn")
            done = write(fd, data)
            self.step("journal.written")
            return done

        channel.ack, channel.nack = ack_watched, nack_watched
        ReplayOutbox.send = send_watched  # type: ignore[method-assign]
        durable_file.os = Os(write_watched)  # type: ignore[attr-defined]


class Os:
    """The module os, but for `write`."""

    def __init__(self, write: Any) -> None:
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def mark_connections(name: str) -> None:
    """Each connection declares an exclusive queue, `NAME.0` and so on: that is gone once the broker has ended it."""
    connect, numbers = connection._connect, iter(range(100))

    async def marked(*arguments: Any) -> Any:
        made = await connect(*arguments)
        channel = await made.admin_channel()
        await channel.queue_declare(f"{name}.{next(numbers)}", exclusive=True, durable=False)
        await channel.close()
        return made

    connection._connect = marked  # type: ignore[assignment]


async def run(address: BrokerAddress, death: Death, directory: str, kind: str) -> None:
    compiled = shared_shop(address.vhost, kind)
    async with open_broker(address) as broker:
        if death.point == "listing":
            await list_parked(broker, compiled, on_progress=lambda *_: death.step("listing"))
        else:
            journals = Journals(Path(directory)) if directory else None
            await replay_parked(broker, compiled, "b", journals=journals, on_step=death.step)


def main() -> None:
    sending.BATCH = 20  # so that there are several rounds
    sending.WINDOW = WINDOW
    url, management_url, point, times, directory, kind = sys.argv[1:]
    death = Death(point, int(times))
    death.watch(Channel)
    mark_connections(name_of(os.getpid()))
    asyncio.run(run(BrokerAddress(url=url, source="test", management_url=management_url), death, directory, kind))


if __name__ == "__main__":
    main()
