"""Run as a process: a worker that is started again whenever it dies, with a handler that one message kills.

It prints the id of each message that was handled, one a line. The process forks for every start, so that the cost of
importing is paid once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from amqpflow import Consumer, Message
from amqpflow.model.routes import CompiledTopology
from amqpflow.services.loading.topology import Topology
from tests.topologies import topology

DELIVERY_LIMIT = 12  #: the default is 50; what one neighbour is counted by chance has to stay below
STARTS = 40


def crash_loop_topology(vhost: str) -> CompiledTopology:
    # the consumer's own limit is never reached
    return topology({"orders": (50,)}, vhost=vhost, delivery_limit=DELIVERY_LIMIT, crash_limit=1000)


async def consume(url: str, compiled: CompiledTopology) -> None:
    consumer = Consumer(Topology(compiled=compiled), url)

    @consumer.handler("orders", concurrency=5, prefetch=20)
    async def handle(message: Message) -> None:
        if message.message_id == "poison":
            await asyncio.sleep(0.02)
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0.1)
        os.write(1, f"{message.message_id}\n".encode())

    await consumer.serve()


def main(url: str, vhost: str) -> None:
    compiled = crash_loop_topology(vhost)
    child = 0
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    for _ in range(STARTS):
        child = os.fork()
        if not child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.alarm(120)
            asyncio.run(consume(url, compiled))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
