"""How much memory `parked list` and `parked stats` take, whatever the number of parked messages.

    AMQPFLOW_URL=amqp://guest:guest@localhost/ python benchmarks/parked_memory.py [-n 1000000] [--type classic]

Parks so many messages of 256 bytes with failure records in the queue `bench.parked`, reads them by each command in a
process of its own, and deletes the queue. Exit code 1 when a command needs 100 MiB or more at its peak, or fails.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time

from side_by_side import URL

QUEUE = "bench.parked"
ALLOWED = 100.0  #: MiB
AHEAD = 5000  #: publishes without a confirm
COMMANDS = (("list",), ("stats",), ("stats", "--by", "fingerprint", "--match", "headers.tenant == 'a'"))


async def park(count: int, kind: str) -> None:
    """Declare the queue, and fill it."""
    from amqpflow.model.headers import FINGERPRINT
    from amqpflow.model.message import Publish
    from amqpflow.model.properties import Properties
    from amqpflow.rabbitmq.address import resolve_address
    from amqpflow.rabbitmq.connection import connect

    limit = {"x-delivery-limit": 1_000_000} if kind == "quorum" else {}
    async with await connect(resolve_address(URL), name="amqpflow benchmark") as connection:
        admin = await connection.admin_channel()
        await admin.queue_delete(QUEUE)
        await admin.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": kind, **limit})
        channel, failed = await connection.open_channel(), []
        for number in range(count):
            headers = {
                "tenant": "ab"[number % 2],
                "x-amqpflow-queue": "orders",
                "x-amqpflow-reason": "exhausted",
                "x-amqpflow-attempt": 5,
                "x-amqpflow-error-type": "ValueError",
                "x-amqpflow-error-message": f"no such order {number}",
                "x-amqpflow-error-stack": "Traceback (most recent call last):\n" + 5 * "  File orders.py\n",
                "x-amqpflow-hop": f"m-{number}/0/5",
                FINGERPRINT: f"{number % 50:016x}",
            }
            properties = Properties(message_id=f"m-{number}", headers=headers, delivery_mode=2)
            publish = Publish.of(exchange="", routing_key=QUEUE, properties=properties, body=b"x" * 256)
            channel.post(publish, lambda error: failed.append(error) if error else None)
            if number % 500 == 0:
                await channel.room()
                while channel.outstanding > AHEAD:
                    await asyncio.sleep(0.002)
        while channel.outstanding:
            await asyncio.sleep(0.01)
        assert not failed, failed[0]


async def delete() -> None:
    from amqpflow.rabbitmq.address import resolve_address
    from amqpflow.rabbitmq.connection import connect

    async with await connect(resolve_address(URL), name="amqpflow benchmark") as connection:
        await (await connection.admin_channel()).queue_delete(QUEUE)


def measure(command: tuple[str, ...], count: int) -> bool:
    """Run it, print what it took; False when that was too much."""
    arguments = [sys.executable, "-m", "amqpflow", "parked", *command, "--from", QUEUE, "--url", URL]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(arguments, stdout=out)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode, peak = os.waitstatus_to_exitcode(status), used.ru_maxrss / 1024
    cpu = (used.ru_utime + used.ru_stime) / count * 1e6
    print(
        f"parked {' '.join(command)}: {count:,} messages, {time.perf_counter() - started:.0f} s, "
        f"{cpu:.0f} us CPU each, peak {peak:.1f} MiB, exit {process.returncode}"
    )
    return process.returncode == 0 and peak < ALLOWED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1_000_000, help="messages")
    parser.add_argument("--type", choices=["quorum", "classic"], default="quorum")
    options = parser.parse_args()
    asyncio.run(park(options.n, options.type))
    try:
        passed = [measure(command, options.n) for command in COMMANDS]
    finally:
        asyncio.run(delete())
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
