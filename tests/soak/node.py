"""The node of a soak, its alone: memory alarms, restarts, users and what they may do."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amqpflow.node.locate import Installation, locate
from amqpflow.rabbitmq.address import resolve_address
from tests.brokers.management import Management
from tests.brokers.own_node import OwnNode
from tests.brokers.selection import parse_version

USER, VHOST = "soak", "soak"
EVERYTHING = ".*"


class SoakNode:
    """A node with a virtual host and a user for the consumers. Use as a context manager, in a thread of its own or not.

    Args:
        directory: for the data of a private node.
        broker: `amqp://...|http://...` of a node that runs already and serves nothing else; None: start a private one.
        ctl: the command that runs rabbitmqctl on it, when it runs already.
    """

    def __init__(self, directory: Path, broker: str | None, ctl: str | None) -> None:
        self._own: OwnNode | None = None
        self._ctl: Callable[..., None]
        if broker is None:
            found = locate()
            if not isinstance(found, Installation):
                raise SystemExit(f"no broker is named, and there is none to start: {found.reason}")
            self._own = OwnNode(found, directory)
        else:
            url, _, management = broker.partition("|")
            self.root = resolve_address(url, management or None, environ={})
            command = shlex.split(ctl or "rabbitmqctl")
            self._ctl = lambda *arguments: _run(*command, *arguments)
        self.password = "first"

    def __enter__(self) -> SoakNode:
        if self._own is not None:
            self._own.start()
            self.root, self._ctl = self._own.address, self._own.ctl
        self.management = Management(self.root)
        self.version = parse_version(self.management.get("overview")["rabbitmq_version"])
        self.address = self.root.with_vhost(VHOST)  #: for an administrator
        self.management.delete("vhosts", VHOST)
        self.management.put("vhosts", VHOST)
        self.permit(self.root.user)
        self.rotate("first")
        self.permit(USER)
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.stop()
            return
        for path in (("vhosts", VHOST), ("users", USER)):
            self.management.delete(*path)
        for each in self.management.get("global-parameters") or ():
            if each["name"].startswith(f"amqpflow.{VHOST}"):
                self.management.delete("global-parameters", each["name"])

    def permit(self, user: str, write: str = EVERYTHING) -> None:
        """Let a user read and configure everything, and write to what the pattern matches."""
        body = {"configure": EVERYTHING, "write": write, "read": EVERYTHING}
        self.management.put("permissions", VHOST, user, body=body)

    def rotate(self, password: str) -> None:
        """Give the consumers' user another password."""
        self.password = password
        self.management.put("users", USER, body={"password": password, "tags": ""})

    def limit_connections(self, most: int | None) -> None:
        """Let the consumers' user have no more connections than that."""
        if most is None:
            self.management.delete("user-limits", USER, "max-connections")
        else:
            self.management.put("user-limits", USER, "max-connections", body={"value": most})

    def close_connections(self) -> int:
        """Close all connections of the consumers' user, as an operator does; return how many."""
        names = [each["name"] for each in self.management.get("connections") if each.get("user") == USER]
        for name in names:
            self.management.delete("connections", name)
        return len(names)

    def alarm(self, raised: bool) -> None:
        """Make the node short of memory, or no longer."""
        self._ctl("set_vm_memory_high_watermark", "0.00001" if raised else "0.6")

    def stop(self) -> None:
        """Stop RabbitMQ; a private node is killed instead, as a machine that loses its power."""
        if self._own is not None:
            self._own.kill()
        else:
            self._ctl("stop_app")

    def start(self) -> None:
        """Start it again."""
        if self._own is not None:
            self._own.start()
        else:
            self._ctl("start_app")

    def retained(self, queue: str) -> dict[str, Any]:
        """What the management API says of a queue."""
        return self.management.get("queues", VHOST, queue) or {}


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}"


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what blocks."""
    return await asyncio.to_thread(function, *arguments)
