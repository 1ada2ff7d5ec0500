"""Whether a consumer's memory stays flat over a million messages, one in a hundred of them retried.

    AMQPFLOW_URL=amqp://guest:guest@localhost/ python benchmarks/memory.py [-n 1000000]

A publisher in another process keeps the queue filled. Resident memory is read every 20,000 messages; exit code 1 when
its median in the last quarter is more than 2 MiB above that of the second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import time

from side_by_side import PREFETCH, URL, body, provisioned, topology

QUEUE = "bench.work"
AHEAD = 20_000  #: messages in the queue at most, and between two looks at the memory
ALLOWED = 2.0  #: MiB


async def produce(count: int) -> None:
    """Publish, never more than AHEAD before the consumer."""
    from amqpflow import OutgoingMessage, Publisher
    from amqpflow.rabbitmq.address import resolve_address
    from amqpflow.rabbitmq.connection import connect

    connection = await connect(resolve_address(URL), name="amqpflow benchmark")
    channel = await connection.open_channel()
    async with Publisher(URL) as publisher:
        for first in range(0, count, AHEAD // 2):
            while (await channel.queue_counts(QUEUE)).ready > AHEAD // 2:
                await asyncio.sleep(0.02)
            results = await publisher.publish_many(
                OutgoingMessage(body=body(number), routing_key=QUEUE, message_id=f"m-{number:08d}")
                for number in range(first, min(first + AHEAD // 2, count))
            )
            assert all(isinstance(each, str) for each in results)
    await connection.close()


async def consume(count: int) -> list[float]:
    """MiB after each AHEAD messages."""
    from amqpflow import Consumer, Message

    consumer = Consumer(topology("bench", "classic"), URL)
    done, samples, finished = asyncio.Event(), [], 0

    @consumer.handler(QUEUE, concurrency=PREFETCH, prefetch=PREFETCH)
    async def work(message: Message) -> None:
        nonlocal finished
        if message.json()["id"] % 100 == 0 and message.attempt == 1:
            raise ConnectionError("once")
        finished += 1
        if finished % AHEAD == 0:
            samples.append(resident())
        if finished == count:
            done.set()

    async with provisioned(topology("bench", "classic").compiled):
        producer = subprocess.Popen([sys.executable, sys.argv[0], "--produce", "-n", str(count)])
        started, cpu = time.perf_counter(), time.process_time()
        async with consumer:
            await done.wait()
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        assert producer.wait() == 0
    print(
        f"{count:,} messages, {consumer.totals['retried']:,} retried, {wall:.0f} s, {cpu / count * 1e6:.0f} us CPU each"
    )
    return samples


def resident() -> float:
    with open("/proc/self/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1_000_000, help="messages")
    parser.add_argument("--produce", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.produce:
        asyncio.run(produce(options.n))
        return
    samples = asyncio.run(consume(options.n))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    quarter = len(samples) // 4
    early, late = statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])
    shown = samples[:: max(1, len(samples) // 10)]
    print("resident MiB:", " ".join(f"{each:.1f}" for each in shown), f"(peak {peak:.1f})")
    print(f"second quarter {early:.1f} MiB, last quarter {late:.1f} MiB")
    sys.exit(1 if late > early + ALLOWED else 0)


if __name__ == "__main__":
    main()
