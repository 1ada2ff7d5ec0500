"""Free ports on loopback for a node that binds them a moment later."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable

from .settings import Ports

#: Below the range from which Linux (32768) and macOS (49152) take the ports of outgoing connections.
FIRST, LAST = 20_000, 32_000

_RANDOM = random.SystemRandom()  # two nodes that start at once must not choose alike


def choose(preferred: Ports | None = None) -> Ports:
    """Choose four free ports: `preferred` if all of them are free.

    Between this look and the node's own bind another process can take one. The starter of the node looks again when it
    fails (`taken`) and tries with others.

    Raises:
        OSError: no free ports.
    """
    if preferred is not None and not taken(preferred):
        return preferred
    for _ in range(200):
        ports = _RANDOM.sample(range(FIRST, LAST), 4)
        if not taken(ports):
            amqp, management, distribution, epmd = ports
            return Ports(amqp=amqp, management=management, distribution=distribution, epmd=epmd)
    raise OSError(f"no free ports between {FIRST} and {LAST}")


def taken(ports: Iterable[int]) -> list[int]:
    """Return the ports that a process listens on or is bound to, on loopback or on all addresses."""
    return [port for port in ports if not _free(port)]


def _free(port: int) -> bool:
    with socket.socket() as listener:
        # as the node will: a port whose last connections are still timing out is free
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
