"""Run as a process: consumers that kill themselves, one each, at a named point of a settlement.

The process forks for every point, so that the cost of importing is paid once. It prints the points that were reached,
one a line; whoever did not reach its point within the time says nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass

from amqpflow import Ack, Consumer, Discard, Message, Outcome, Park, Pause, Retry
from amqpflow.model.routes import CompiledTopology, NativeRetry
from amqpflow.services.loading.topology import Topology
from tests.topologies import topology

TIMEOUT = 90  #: seconds for a consumer to reach its point

PUBLISHING = (
    "publish.before",
    "publish.before+1",  # some turns of the event loop later: written, not confirmed
    "publish.before+3",
    "publish.before+6",
    "publish.confirmed",
    "ack.before",
    "ack.after",
    "ack.after+1",
    "ack.after+4",
)
STEPS = {
    "retry": PUBLISHING,
    "error": ("publish.before", "publish.confirmed", "ack.after"),
    "park": PUBLISHING,
    "exhausted": ("publish.before", "publish.confirmed", "ack.after"),
    "discard": ("ack.before", "ack.after", "ack.after+4"),
    "unpublishable": ("nack.before", "nack.after", "nack.after+4"),
    "pause": ("publish.before", "publish.confirmed", "ack.after", "opened", "opened+4", "half-open", "half-open+4"),
    "round": ("publish.before", "publish.confirmed", "ack.after"),
}
REJECTING = ("reject.before", "reject.after", "reject.after+1", "reject.after+4")
NATIVE_STEPS = {**STEPS, "retry": REJECTING, "error": REJECTING, "pause": (*REJECTING, "opened+4", "half-open+4")}
AFTER = 0.3  #: seconds that `round` asks for: longer than its tier


@dataclass(frozen=True, kw_only=True)
class Point:
    """A consumer with this outcome dies at this step; it has a work queue of its own."""

    outcome: str
    step: str

    @property
    def queue(self) -> str:
        return f"{self.outcome}@{self.step}"


def points(kind: str) -> tuple[Point, ...]:
    """Every point, for quorum, classic or native: quorum queues whose retries are RabbitMQ's own.

    A message that cannot be copied stays in a classic queue, so nothing is settled there; a native queue sends nothing
    round before it is due.
    """
    steps = NATIVE_STEPS if kind == "native" else STEPS
    none = {"classic": "unpublishable", "native": "round"}.get(kind)
    outcomes = [each for each in steps if each != none]
    return tuple(Point(outcome=outcome, step=step) for outcome in outcomes for step in steps[outcome])


def crash_topology(vhost: str, kind: str) -> CompiledTopology:
    delays = {each.queue: () if each.outcome == "exhausted" else (50,) for each in points(kind)}
    if kind == "native":
        return topology(delays, vhost=vhost, native=NativeRetry(min_ms=50, max_ms=50, retries=1))
    return topology(delays, vhost=vhost, queue_type=kind)


def settle(point: Point, message: Message) -> Outcome:
    """What the handler says: the same on every attempt but for a retry, which succeeds on the second."""
    match point.outcome:
        case "retry" | "error" | "pause" | "round" if message.attempt > 1:
            return Ack()
        case "retry":
            return Retry()
        case "pause":
            return Pause(for_=0.1)
        case "round":
            return Retry(after=AFTER)
        case "park":
            return Park()
        case "discard":
            return Discard()
        case _:
            raise ValueError(point.outcome)


async def die(point: Point, compiled: CompiledTopology, url: str, reached: int) -> None:
    consumer = Consumer(Topology(compiled=compiled), url)

    @consumer.handler(point.queue, concurrency=1)
    async def handle(message: Message) -> Outcome:
        return settle(point, message)

    name, _, turns = point.step.partition("+")

    def kill(turns_left: int) -> None:
        if turns_left:
            asyncio.get_running_loop().call_soon(kill, turns_left - 1)
        else:
            os.write(reached, f"{point.queue}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    reached_now = 0

    def step(what: str) -> None:
        nonlocal reached_now
        # what is sent round comes to its steps once more: the first time is an ordinary retry
        reached_now += what == name
        if what == name and reached_now == (2 if point.outcome == "round" else 1):
            kill(int(turns or 0))

    consumer._on_step = step
    consumer.subscribe(lambda _: step("opened"), "breaker.opened")
    consumer.subscribe(lambda _: step("half-open"), "breaker.half_open")
    await consumer.start()
    await asyncio.sleep(TIMEOUT)


def main(url: str, vhost: str, kind: str) -> None:
    compiled = crash_topology(vhost, kind)
    children = []
    for point in points(kind):
        child = os.fork()
        if not child:
            signal.alarm(TIMEOUT)
            asyncio.run(die(point, compiled, url, 1))
            os._exit(1)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
