"""List, export, discard or restore in a process that kills itself: `URL MANAGEMENT_URL KIND WHAT STEP TIMES FILE`.

STEP is a step of the operation, or `seen`: in the middle of the reading. The process dies when it comes there for the
TIMES-th time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.parked.export import discard_parked, export_parked
from amqpflow.services.parked.listing import list_parked
from amqpflow.services.parked.restore import restore_parked
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import read_target
from tests.faults.replay_and_die import mark_connections, name_of, shared_shop

STEPS = {
    "list": ("seen",),
    "export": ("seen",),
    "discard": ("seen", "sync", "ack", "acked", "prove", "finish"),
    "restore": ("publish", "recorded"),
}


async def main(url: str, management: str, kind: str, what: str, step: str, times: str, file: str) -> None:
    left = int(times)

    def at(reached: str) -> None:
        nonlocal left
        left -= reached == step
        if reached == step and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    address = BrokerAddress(url=url, source="test", management_url=management)
    options = ReadOptions(on_progress=lambda *_: at("seen"))
    async with open_broker(address, name="amqpflow test") as broker:
        target = read_target(broker, shared_shop(address.vhost, kind), (), options)
        if what == "list":
            await list_parked(target, Selection())
        elif what == "export":
            await export_parked(target, Selection(), file)
        elif what == "discard":
            await discard_parked(target, Selection(queues=("b",)), file, on_step=at)
        else:
            await restore_parked(broker, file, ReadOptions(), on_step=at)


if __name__ == "__main__":
    mark_connections(name_of(os.getpid()))
    asyncio.run(main(*sys.argv[1:]))
