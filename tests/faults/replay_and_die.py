"""Replay, or list, in a process that kills itself: `replay_and_die.py URL MANAGEMENT_URL POINT TIMES`.

POINT is a step of the replay, or one that is seen here alone: `publish.sent` and `ack.sent` are reached when the frame
was handed to the socket and nothing has answered it, `nack.sent` likewise while everything is given back, and
`listing` in the middle of a listing. The process dies when it comes there for the TIMES-th time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from amqpflow.model.message import Publish
from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.parking import list_parked
from amqpflow.services.replayer import replay_parked
from tests.topologies import topology

POINTS = (
    "publish.before",
    "publish.sent",
    "publish.confirmed",
    "ack.before",
    "ack.after",
    "ack.sent",
    "give-back.before",
    "nack.sent",
    "give-back.after",
)


def shared_shop(vhost: str) -> CompiledTopology:
    """Two work queues that park in one queue."""
    return topology({"a": [1000], "b": [1000]}, vhost=vhost, parking="shared.parking")


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
        publish, ack, nack = channel.publish, channel.ack, channel.nack
        watching: set[asyncio.Task[None]] = set()

        async def sent(self_: Channel, point: str) -> None:
            await self_.drain()
            self.step(point)

        def soon(self_: Channel, point: str) -> None:
            if self.point == point:
                watching.add(asyncio.get_running_loop().create_task(sent(self_, point)))

        async def publish_watched(self_: Channel, message: Publish) -> None:
            soon(self_, "publish.sent")
            await publish(self_, message)

        def ack_watched(self_: Channel, *arguments: Any, **options: Any) -> bool:
            done = ack(self_, *arguments, **options)
            soon(self_, "ack.sent")
            return bool(done)

        def nack_watched(self_: Channel, *arguments: Any, **options: Any) -> bool:
            done = nack(self_, *arguments, **options)
            soon(self_, "nack.sent")
            return bool(done)

        channel.publish, channel.ack, channel.nack = publish_watched, ack_watched, nack_watched


async def run(address: BrokerAddress, death: Death) -> None:
    compiled = shared_shop(address.vhost)
    async with open_broker(address) as broker:
        if death.point == "listing":
            await list_parked(broker, compiled, on_progress=lambda *_: death.step("listing"))
        else:
            await replay_parked(broker, compiled, "b", on_step=death.step)


def main() -> None:
    url, management_url, point, times = sys.argv[1:]
    death = Death(point, int(times))
    death.watch(Channel)
    asyncio.run(run(BrokerAddress(url=url, source="test", management_url=management_url), death))


if __name__ == "__main__":
    main()
