"""A private RabbitMQ node, run as the current user from a directory of its own."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from amqpflow.errors import BrokerUnavailableError
from amqpflow.rabbitmq.address import BrokerAddress

from . import ports as free_ports
from .directory import NodeDirectory, kept, temporary
from .greeting import greet
from .locate import Installation
from .management_api import management_answers
from .settings import Ports, environment

_KEEPER = Path(__file__).with_name("keeper.py")
_ATTEMPTS = 3  #: how often other ports are chosen, when a process took them before the node did
_GRACE = 30.0  #: seconds for a node whose data is kept to stop in order
_PAUSE = 0.05  #: seconds between two checks whether the node answers


class PrivateNode:
    """One node: `start`, then `address`, and `stop`, which may be called at any time and from any thread.

    It ends with this process, in whatever way that ends (see keeper.py). A node whose data is not kept is killed.
    """

    def __init__(self, installation: Installation, *, keep: Path | None = None, ready_within: float = 120.0) -> None:
        self.installation = installation
        self.keep = keep
        self.ready_within = ready_within  #: seconds, in all
        self.version = installation.version
        self._run: _Run | None = None
        self._stopped = threading.Event()

    @property
    def description(self) -> str:
        home = self.installation.home
        where = home.parent if home.name.endswith(self.version) else home  # no version twice
        return f"private node, RabbitMQ {self.version} from {where}"

    def start(self) -> BrokerAddress:
        """Start the node and return when AMQP and the management API both answer.

        Raises:
            BrokerUnavailableError: it ended while starting, or does not answer in time; with the end of its log.
            RefusedError: the directory to keep its data in cannot be used.
        """
        deadline = time.monotonic() + self.ready_within
        for attempt in range(1, _ATTEMPTS + 1):
            directory = temporary() if self.keep is None else kept(self.keep)
            try:
                chosen = free_ports.choose(directory.ports if attempt == 1 else None)
                run = self._run = _spawn(self.installation, directory, chosen)
                if self._wait_until_ready(run, deadline):
                    directory.remember(chosen, self.version)
                    return run.address
                failure = self._failure(run, "ended while it was starting")
            except BaseException as error:
                self.stop()
                directory.discard()
                if isinstance(error, OSError):
                    raise BrokerUnavailableError(f"cannot start a private node in {directory.path}: {error}") from error
                raise
            self._end(run)
            if not free_ports.taken(chosen):
                break
        raise failure

    def _wait_until_ready(self, run: _Run, deadline: float) -> bool:
        """Wait until the node answers; False when it ended."""
        steps: list[Callable[[], bool]] = [
            lambda: self._greeted(run),
            lambda: management_answers(run.address, timeout=5),
        ]
        while steps:
            if self._stopped.is_set():
                raise BrokerUnavailableError("the private node was stopped while it was starting")
            if run.ended(within=0):
                return False
            if steps[0]():
                steps.pop(0)
            elif time.monotonic() > deadline:
                raise self._failure(run, f"did not answer within {self.ready_within:g} s")
            else:
                run.ended(within=_PAUSE)
        return True

    def _greeted(self, run: _Run) -> bool:
        try:
            _, self.version = greet(run.address, timeout=5)
        except BrokerUnavailableError:
            return False
        return True

    def _failure(self, run: _Run, what: str) -> BrokerUnavailableError:
        message = f"the private RabbitMQ {self.installation.version} {what}"
        if run.directory.version and run.directory.version != self.installation.version:
            message += f"; its data in {run.directory.path} was written by RabbitMQ {run.directory.version}"
        return BrokerUnavailableError(message, hint=run.directory.log_tail() or "it left no log")

    def wait(self) -> None:
        """Wait until the node ends by itself, which it should not.

        Raises:
            BrokerUnavailableError: always, in the end; with the end of its log.
        """
        if self._run is None:
            raise BrokerUnavailableError("the private node is not running")
        self._run.ended(within=None)
        raise self._failure(self._run, "has ended")

    def stop(self) -> None:
        """End the node, if there is one, and wait until it and (unless kept) its files are gone."""
        self._stopped.set()
        if self._run is not None:
            self._end(self._run)

    def _end(self, run: _Run) -> None:
        run.lifeline.close()
        run.keeper.wait()
        run.news.close()
        run.directory.discard()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run of a node: its keeper, the pipe that keeps it alive, and the pipe that closes when the node ends."""

    address: BrokerAddress
    directory: NodeDirectory
    keeper: subprocess.Popen[bytes]
    lifeline: IO[bytes]
    news: IO[bytes]

    def ended(self, *, within: float | None) -> bool:
        """Return whether the node ends within so many seconds; None waits for ever."""
        return bool(select.select([self.news], [], [], within)[0])


def _spawn(installation: Installation, directory: NodeDirectory, ports: Ports) -> _Run:
    directory.write(ports)
    user, password = directory.identity.user, directory.identity.password
    address = BrokerAddress(
        url=f"amqp://{user}:{password}@127.0.0.1:{ports.amqp}/",
        source="private node",
        management_url=f"http://127.0.0.1:{ports.management}",
    )
    settings = {
        "starter": os.getpid(),
        "node": [str(installation.server)],
        "epmd": [str(installation.epmd), "-port", str(ports.epmd)] if installation.epmd else None,
        "epmd_port": ports.epmd,
        "directory": str(directory.path),
        "keep": directory.kept,
        "grace": _GRACE,
    }
    with directory.log.open("wb") as log:
        keeper = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", str(_KEEPER), json.dumps(settings)],
            env=environment(directory.identity, ports, directory.path, path=installation.path),
            cwd=directory.path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C on the terminal is for us; the node is then stopped in order
            pass_fds=() if directory.lock is None else (directory.lock,),  # held until the node is gone
        )
    lifeline, news = cast(IO[bytes], keeper.stdin), cast(IO[bytes], keeper.stdout)
    return _Run(address=address, directory=directory, keeper=keeper, lifeline=lifeline, news=news)
