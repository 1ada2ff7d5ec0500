"""A server that forks an operator for each request: `python -m tests.statemachine.operating SOCKET TOPOLOGIES`.

An operator is a process of its own, as a person's command is: killed by SIGKILL it writes no last line and closes
nothing. Forked from a server that has everything imported it starts in some milliseconds. SOCKET is the number of a
socket over which requests come, one a datagram, each with the socket over which its operator answers in JSON lines.
TOPOLOGIES is a directory of topology files.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from amqpflow import ReadOptions, ReplayRequest, Selection, Topology
from amqpflow.api import functions as api
from amqpflow.errors import AmqpflowError
from amqpflow.rabbitmq import observe
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.channel import Channel
from amqpflow.services.parked import export as parked_export
from amqpflow.services.parked import restore as parked_restore
from amqpflow.services.parked import restore_publisher
from amqpflow.services.replaying import queue_pass, reparked, replayer, sending
from amqpflow.services.replaying import request as replay_request
from tests.faults.replay_and_die import Death, mark_connections

WINDOW = 4  #: publishes of an operator that may be in doubt at once
REPORTED = (
    *(
        "replayed",
        "already",
        "failed",
        "in_doubt",
        "others",
        "remaining",
        "stopped",
        "complete",
        "interrupted",
        "notes",
    ),
    *("selected", "discarded", "messages", "restored", "before", "still_parked"),
)


class Stopping(Death):
    """Stops the operator at a point, or at a turn of its event loop: killed, cancelled, asked to stop, or paused."""

    def __init__(self, stop: Mapping[str, Any] | None, answer: Callable[..., None], line: socket.socket) -> None:
        super().__init__(stop["at"] if stop else "", stop["times"] if stop else 0)
        self.how = stop["how"] if stop else ""
        self.cancel: Callable[[], object] = lambda: None
        self.stopped = asyncio.Event()
        self._answer = answer
        self._line = line

    def step(self, name: str) -> None:
        if name != self.point:
            return
        self.left -= 1
        if self.left:
            return
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "cancel":
            self.cancel()
        elif self.how == "stop":
            self.stopped.set()
        elif self.how == "pause":
            self._answer(paused=name)
            self._line.recv(1)


class Loop(asyncio.SelectorEventLoop):
    """Tells of each of its turns."""

    on_turn: Callable[[str], None] = staticmethod(lambda _: None)

    def _run_once(self) -> None:
        self.on_turn("turn")
        super()._run_once()  # type: ignore[misc]


def small_steps(batch: int, prove_every: float) -> None:
    """A few messages are to make several steps."""
    for module, name, value in (
        (sending, "BATCH", batch),
        (sending, "WINDOW", WINDOW),
        (sending, "_GROUP", 1),
        (queue_pass, "PROVE_EVERY", prove_every),
        (reparked, "GUARD_EVERY", 0.001),
        (parked_export, "_WINDOW", 2),
        (restore_publisher, "WINDOW", 2),
    ):
        assert hasattr(module, name)
        setattr(module, name, value)


def doing(
    topology: Topology, address: BrokerAddress, request: Mapping[str, Any], stopping: Stopping, on_wait: Any
) -> Awaitable[Any]:
    """Do what is asked for, through the api."""
    replayer.replay_parked = partial(replayer.replay_parked, on_step=stopping.step)
    parked_export.discard_parked = partial(parked_export.discard_parked, on_step=stopping.step)
    parked_restore.restore_parked = partial(parked_restore.restore_parked, on_step=stopping.step)
    options = ReadOptions(stop=stopping.stopped, on_wait=on_wait)
    asked = request["asked"] or {}
    if asked.get("do") == "restore":
        return api.restore_parked(request["export"], address, options=options)
    queue, errors = asked.get("queue"), tuple(asked.get("error_types", ()))
    if asked.get("do") == "discard":
        selection = Selection(queues=tuple(queue or ()), error_types=errors, limit=asked["limit"])
        return api.discard_parked(topology, request["export"], address, selection=selection, options=options)
    choice = None
    if asked:
        choice = ReplayRequest(
            select=Selection(error_types=errors) if errors else None,
            to=replay_request.destination_of(asked["to"], {}) if asked["to"] else None,
            **{name: asked[name] for name in ("limit", "in_doubt", "stop_if_reparked")},
        )
    return api.replay(
        topology,
        address,
        queue=queue,
        choice=choice,
        journal=request["journal"],
        resume=request["resume"],
        options=options,
    )


async def operate(
    topology: Topology, request: Mapping[str, Any], stopping: Stopping, answer: Callable[..., None]
) -> None:
    address = BrokerAddress(url=request["url"], source="test", management_url=request["management_url"])
    stopping.stopped = asyncio.Event()
    task = asyncio.ensure_future(doing(topology, address, request, stopping, lambda queue: answer(waiting=queue)))
    stopping.cancel = task.cancel
    asyncio.get_running_loop().on_turn = stopping.step  # type: ignore[attr-defined]
    try:
        report = await task
    except asyncio.CancelledError:
        answer(cancelled=True)
    except AmqpflowError as error:
        answer(error=type(error).__name__, text=str(error))
    else:
        answer(report={name: getattr(report, name) for name in REPORTED if hasattr(report, name)})


def serve_one(topologies: Mapping[str, Topology], request: Mapping[str, Any], line: socket.socket) -> None:
    def answer(**values: Any) -> None:
        line.sendall(json.dumps(values, default=repr).encode() + b"\n")

    try:
        stopping = Stopping(request["stop"], answer, line)
        stopping.watch(Channel)
        small_steps(request["batch"], request["prove_every"])
        mark_connections(request["name"])
        if not request["management_url"]:
            observe.open_broker = partial(observe.open_broker, use_management=False)  # type: ignore[assignment]
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(operate(topologies[request["topology"]], request, stopping, answer))
    except BaseException:
        answer(crash=traceback.format_exc())


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    topologies = {path.stem: Topology.load(path) for path in Path(sys.argv[2]).glob("*.yaml")}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not data:
            return
        line = socket.socket(fileno=descriptors[0])
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            serve_one(topologies, json.loads(data), line)
            os._exit(0)
        line.close()


if __name__ == "__main__":
    main()
