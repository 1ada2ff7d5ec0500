"""A node of a test's own, to be stopped, killed and meddled with."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from amqpflow.node import BrokerContext, start_broker
from amqpflow.node.locate import Installation
from amqpflow.node.settings import STATISTICS_INTERVAL
from amqpflow.rabbitmq.address import BrokerAddress

from .ctl import rabbitmqctl
from .processes import belonging_to


class OwnNode:
    """A private node whose data outlives a restart. Its methods block; call them in a thread.

    Args:
        installation: of RabbitMQ.
        directory: where its data are kept.
        configuration: lines of rabbitmq.conf besides those that every private node has.
    """

    def __init__(self, installation: Installation, directory: Path, configuration: str = "") -> None:
        self.directory = directory
        self._installation = installation
        self._configuration = configuration
        self._context: BrokerContext | None = None
        self.address: BrokerAddress  #: once it has started

    def start(self) -> None:
        """Start it; the second time under the same address, with what it held."""
        extra = self.directory / "conf.d" / "90-test.conf"
        extra.parent.mkdir(parents=True, exist_ok=True)
        extra.write_text(self._configuration + "\n")
        # what a tier was handing over when the node was killed would be tried again after 180 s
        quickly = "{dead_letter_worker_publisher_confirm_timeout, 500}, "
        quickly += f"{{quorum_tick_interval, {STATISTICS_INTERVAL}}}"
        (self.directory / "advanced.config").write_text(f"[{{rabbit, [{quickly}]}}].")
        self._context = start_broker(keep=self.directory, environ={"PATH": self._installation.path})
        self.address = self._context.__enter__().address

    def stop(self) -> None:
        """Stop it in order."""
        if self._context is not None:
            context, self._context = self._context, None
            context.__exit__(None, None, None)

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power."""
        os.kill(self._erlang(), signal.SIGKILL)
        self.stop()

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl, in the node's own environment; return what it printed."""
        entries = Path(f"/proc/{self._erlang()}/environ").read_bytes().split(b"\0")
        return rabbitmqctl(
            self._installation, dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry), *arguments
        )

    def set(self, name: str, value: str) -> None:
        """Change a setting of RabbitMQ at run time, in the two places where releases look for it."""
        self.ctl("eval", f"application:set_env(rabbit, {name}, {value}), persistent_term:put({name}, {value}).")

    def _erlang(self) -> int:
        return next(process for process, command in belonging_to(self.directory).items() if "beam" in command)
