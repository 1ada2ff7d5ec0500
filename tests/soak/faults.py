"""What goes wrong in a soak, each with the time within which good messages have to be handled again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.soak.kinds import CLASSIC, QUORUM, THREADS, Sent, bomb, forged
from tests.soak.node import EVERYTHING, in_thread

if TYPE_CHECKING:
    from tests.soak.scene import Scene

DEAD, LOCAL = "dead", "local"  #: a connection has died; or the broker is not needed to handle what is there


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind.

    `away`: nothing can be handled while it lasts, so the time counts from its end. `holds_publishes`: nothing that has
    to be published again can be.
    """

    bound: str
    act: Callable[[Scene, random.Random], AbstractAsyncContextManager[None]]
    away: bool = False
    holds_publishes: bool = False
    needs: str = ""  #: `ctl`: a way to run rabbitmqctl


FAULTS: dict[str, Fault] = {}


def fault(
    bound: str, *, away: bool = False, holds_publishes: bool = False, needs: str = ""
) -> Callable[[Callable[[Scene, random.Random], AsyncIterator[None]]], None]:
    """Register a kind of fault by the name of its function."""

    def register(function: Callable[[Scene, random.Random], AsyncIterator[None]]) -> None:
        FAULTS[function.__name__.replace("_", " ")] = Fault(
            bound=bound,
            act=asynccontextmanager(function),
            away=away,
            holds_publishes=holds_publishes or away,
            needs=needs,
        )

    return register


# -- the network


@fault(DEAD)
async def publishing_frozen(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    scene.network.freeze("amqpflow retries")
    yield
    # what fails until then is held, and may be all that a queue may hold: that is not the next fault's doing
    await asyncio.sleep(12)


@fault(DEAD)
async def consuming_frozen(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    scene.network.freeze("amqpflow consumer")
    yield


@fault(DEAD)
async def all_frozen(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    scene.network.freeze()
    yield


@fault(DEAD)
async def all_cut(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    scene.network.cut()
    yield


@fault(LOCAL)
async def publishing_cut(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    scene.network.cut("amqpflow retries")
    yield


@fault(DEAD, away=True)
async def proxy_mute(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Whoever connects meanwhile waits for an answer that never comes."""
    scene.network.mute = True
    scene.network.cut()
    await asyncio.sleep(chance.uniform(2, 6))
    scene.network.mute = False
    yield


# -- the broker


@fault(DEAD)
async def closed_by_operator(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    await in_thread(scene.node.close_connections)
    yield


@fault(LOCAL, holds_publishes=True, needs="ctl")
async def memory_alarm(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """With a backlog, which is what has to be handled meanwhile: what fails is held, and keeps its place."""
    await scene.burst(800)
    await in_thread(scene.node.alarm, True)
    try:
        await asyncio.sleep(chance.uniform(8, 14))
    finally:
        await in_thread(scene.node.alarm, False)
    yield


@fault(LOCAL, holds_publishes=True)
async def no_write_permission(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """On the exchange of the retry queues, or on all."""
    await in_thread(scene.node.permit, "soak", chance.choice(["^$", r"^soak\.parking$"]))
    try:
        await asyncio.sleep(chance.uniform(3, 8))
    finally:
        await in_thread(scene.node.permit, "soak", EVERYTHING)
    yield


@fault(DEAD, away=True)
async def connection_limit(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    await in_thread(scene.node.limit_connections, 0)
    try:
        scene.network.cut()
        await asyncio.sleep(chance.uniform(2, 6))
    finally:
        await in_thread(scene.node.limit_connections, None)
    yield


@fault(DEAD)
async def password_rotated(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    await in_thread(scene.node.rotate, f"p-{chance.randrange(10**9)}")
    scene.write_url()
    await in_thread(scene.node.close_connections)
    scene.network.cut()
    yield


@fault(DEAD, away=True, needs="ctl")
async def node_restarted(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    await in_thread(scene.node.stop)
    await asyncio.sleep(chance.uniform(1, 4))
    await in_thread(scene.node.start)
    yield


# -- the processes


@fault(LOCAL)
async def process_killed(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """One of the workers, or the only process."""
    workers = scene.workers()
    if workers:
        os.kill(chance.choice(workers), signal.SIGKILL)
    yield


@fault(DEAD)
async def killer_message(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    await scene.publish(Sent(id=f"killer-{scene.next_number()}", queue=QUORUM))
    yield


# -- the handlers


@fault(LOCAL)
async def handlers_exit(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    for _ in range(4):
        await scene.publish(Sent(id=f"exit-{scene.next_number()}", queue=chance.choice([QUORUM, CLASSIC, THREADS])))
    yield


@fault(LOCAL)
async def event_loop_blocked(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    await scene.publish(Sent(id=f"block-{scene.next_number()}", queue=chance.choice([QUORUM, CLASSIC])))
    yield


@fault(LOCAL)
async def threads_stuck(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Longer than their timeout; no thread can be stopped."""
    for _ in range(8):
        await scene.publish(Sent(id=f"stuck-{scene.next_number()}", queue=THREADS))
    yield


@fault(LOCAL)
async def gzip_bombs(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    for _ in range(3):
        # the first one takes a second to make, while the load continues
        await scene.publish(
            await asyncio.to_thread(bomb, scene.next_number(), chance.choice([QUORUM, CLASSIC, THREADS]))
        )
    yield


@fault(LOCAL)
async def forged_headers(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    for _ in range(8):
        await scene.publish_raw(forged(scene.next_number(), chance.choice([QUORUM, CLASSIC, THREADS])))
    yield


def possible(*, ctl: bool, only: tuple[str, ...] = ()) -> Mapping[str, Fault]:
    """Return the faults that can be made here, or those of a list."""
    return {name: each for name, each in FAULTS.items() if (ctl or each.needs != "ctl") and (not only or name in only)}
