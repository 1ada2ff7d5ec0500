"""A cluster of a test's own: three private nodes, to be killed one by one."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from amqpflow.errors import BrokerUnavailableError
from amqpflow.node import ports as free_ports
from amqpflow.node.directory import NodeDirectory
from amqpflow.node.greeting import greet
from amqpflow.node.keeper import wait_for_port
from amqpflow.node.locate import Installation
from amqpflow.node.management_api import management_answers
from amqpflow.node.settings import Identity, Ports, environment
from amqpflow.rabbitmq.address import BrokerAddress

from .ctl import rabbitmqctl

_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _end_with_us() -> None:
    _LIBC.prctl(_PDEATHSIG, signal.SIGKILL)


class Node:
    """One member."""

    def __init__(self, installation: Installation, directory: Path, identity: Identity, ports: Ports) -> None:
        self.directory = NodeDirectory(path=directory, kept=False, identity=identity)
        self.ports = ports
        self.address = BrokerAddress(
            url=f"amqp://{identity.user}:{identity.password}@127.0.0.1:{ports.amqp}/",
            source="own cluster",
            management_url=f"http://127.0.0.1:{ports.management}",
        )
        self._installation = installation
        self._environment = environment(identity, ports, directory, path=installation.path)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and do not wait."""
        with self.directory.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._installation.server)],
                env=self._environment,
                cwd=self.directory.path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_us,
            )

    def wait(self, within: float = 120) -> None:
        """Until it has booted: a virtual host made before that is never started on it (fact 11.25)."""
        deadline = time.monotonic() + within
        while True:
            try:
                greet(self.address, timeout=5)
                if management_answers(self.address, timeout=5):
                    break
            except BrokerUnavailableError:
                pass
            running = self._process is not None and self._process.poll() is None
            assert running, self.directory.log_tail(40)
            assert time.monotonic() < deadline, self.directory.log_tail(40)
            time.sleep(0.1)
        rabbitmqctl(self._installation, self._environment, "await_startup", within=within)

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power."""
        if self._process is not None:
            process, self._process = self._process, None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _choose_ports(size: int) -> list[Ports]:
    """Those of each node; none is chosen twice."""
    chosen: list[Ports] = []
    while len(chosen) < size:
        ports = free_ports.choose(None)
        if not {*ports} & {port for each in chosen for port in each}:
            chosen.append(ports)
    return chosen


class OwnCluster:
    """Three nodes with one port mapper. Its methods block; call them in a thread."""

    def __init__(self, installation: Installation, directory: Path, size: int = 3) -> None:
        assert installation.epmd is not None
        cookie, password, tag = secrets.token_hex(16), secrets.token_urlsafe(12), secrets.token_hex(3)
        ports = _choose_ports(size)
        self._epmd_port = ports[0].epmd
        self._epmd = subprocess.Popen(
            [str(installation.epmd), "-port", str(self._epmd_port), "-address", "127.0.0.1"], preexec_fn=_end_with_us
        )
        wait_for_port(self._epmd_port)
        names = [f"cluster-{tag}-{number}@localhost" for number in range(size)]
        self.nodes: list[Node] = []
        for name, own in zip(names, ports, strict=True):
            path = directory / name.partition("@")[0]
            path.mkdir(mode=0o700)
            (path / ".erlang.cookie").write_text(cookie)
            (path / ".erlang.cookie").chmod(0o400)
            identity = Identity(name=name, user="amqpflow", password=password)
            node = Node(installation, path, identity, replace(own, epmd=self._epmd_port))
            node.directory.write(node.ports)
            members = "".join(
                f"cluster_formation.classic_config.nodes.{number} = {each}\n" for number, each in enumerate(names, 1)
            )
            (path / "conf.d" / "cluster.conf").write_text(
                f"cluster_formation.peer_discovery_backend = classic_config\n{members}"
            )
            self.nodes.append(node)

    def start(self) -> None:
        """Start them all; the first alone, since three that form a cluster at once wait for one another."""
        for node in self.nodes:
            node.start()
            if node is self.nodes[0]:
                node.wait()
        for node in self.nodes:
            node.wait()

    @property
    def address(self) -> BrokerAddress:
        """All nodes."""
        first, *others = self.nodes
        return replace(first.address, others=tuple(node.address.url for node in others))

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()
        self._epmd.kill()
        self._epmd.wait()
