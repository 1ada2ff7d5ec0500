"""Run consumers under load while everything around them fails, and find every message in the end.

    python -m tests.soak --minutes 60 --seed 7
    python -m tests.soak --minutes 60 --workers 1 --broker 'amqp://...|http://...' --ctl 'rabbitmqctl -n soak@localhost'

Without --broker it starts a private node of the RabbitMQ that is installed here. A broker that is named must serve
nothing else: it gets memory alarms and restarts. Exit code 1 when a message is lost or is not where it has to be, when
good messages stand still for longer than is allowed, or when memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.faults import FAULTS, Fault, possible
from tests.soak.ledger import Account, account
from tests.soak.node import SoakNode
from tests.soak.report import Bounds, noises, problems, shortened, table
from tests.soak.scene import Scene, opened


async def soak(
    node: SoakNode,
    directory: Path,
    faults: dict[str, Fault],
    *,
    seconds: float,
    seed: int,
    rate: float = 100,
    workers: int = 2,
    say: bool = False,
) -> tuple[Scene, Account, list[str]]:
    """Run it; return the scene, the account and what went wrong besides."""
    async with opened(node, directory, seed=seed, rate=rate, workers=workers) as scene:
        until = time.time() + seconds
        loading = asyncio.create_task(scene.load(until))
        if not await scene.flows(0, 60):
            raise AssertionError(f"the service does not begin:\n{(directory / 'service.log').read_text()}")
        await scene.break_things(faults, until - 5, say)
        await loading
        wrong = [] if await scene.drained(120) else ["not everything was where it has to be 120 s after the end"]
        if code := await scene.stop_service():
            wrong.append(f"the service ended with exit code {code} when it was told to stop")
        parked, left = await scene.take_everything()
        return scene, account(scene.sent, scene.ledger, parked, left), wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=100, help="messages a second")
    parser.add_argument("--workers", type=int, default=2, help="1: a single process")
    parser.add_argument("--broker", help="AMQP and management URL of a node of its own, separated by |")
    parser.add_argument("--ctl", help="the command that runs rabbitmqctl on that node")
    parser.add_argument("--only", action="append", default=[], choices=sorted(FAULTS), help="this kind of fault")
    parser.add_argument("--dead", type=float, default=15.0, help="seconds allowed after a connection has died")
    parser.add_argument("--local", type=float, default=2.0, help="seconds allowed after what does not need the broker")
    options = parser.parse_args()
    logging.disable()  # of the producer; the service has a log of its own
    directory = Path(tempfile.mkdtemp(prefix="amqpflow-soak-"))
    has_ctl = options.broker is None or options.ctl is not None
    faults = dict(possible(ctl=has_ctl, only=tuple(options.only)))
    seconds = options.minutes * 60
    with SoakNode(directory / "node", options.broker, options.ctl) as node:
        print(
            f"RabbitMQ {'.'.join(map(str, node.version))}, seed {options.seed}, {options.workers} workers, {directory}"
        )
        scene, found, wrong = asyncio.run(
            soak(
                node,
                directory,
                faults,
                seconds=seconds,
                seed=options.seed,
                rate=options.rate,
                workers=options.workers,
                say=True,
            )
        )
    print(*noises(directory / "service.log"), sep="\n")
    print(table(scene, found, seconds))
    wrong += problems(scene, found, Bounds(dead=options.dead, local=options.local), seconds)
    print(*shortened(wrong), sep="\n")
    print("FAILED" if wrong else "passed")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
