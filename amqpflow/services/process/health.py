"""Answer probes over HTTP: /livez that the event loop turns and handlers can be called, /readyz that every queue is
being consumed.

Liveness does not look at the broker: restarting a service does not fix a broker, and all instances at once would make
it worse. https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from amqpflow.errors import UsageError

_PATIENCE = 5.0  #: seconds for a request to arrive
_LARGEST = 16 * 1024  #: bytes of a request's head


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The answer of the probes."""

    ready: bool  #: every queue is being consumed
    problems: Mapping[str, str] = field(default_factory=dict)  #: by queue or subject: why not
    live: bool = True  #: False when a worker process has said nothing for too long


@asynccontextmanager
async def serve_health(port: int | None, host: str | None, health: Callable[[], Health]) -> AsyncIterator[int | None]:
    """Answer probes while the context lasts; yield the port, or None without one. Port 0 is any that is free.

    Without a host all interfaces are listened on, as a kubelet asks from outside. Raises UsageError: it cannot listen.
    """
    if port is None:
        yield None
        return
    try:
        server = await asyncio.start_server(lambda r, w: _answer(r, w, health), host, port, limit=_LARGEST)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen for health probes on port {port}: {error}") from None
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, health: Callable[[], Health]) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(response(head, health()))
            await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the probe gave up
    finally:
        writer.close()


def response(head: bytes, health: Health) -> bytes:
    """Return the answer to a request, by the head of it."""
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    body: Mapping[str, object]
    if method not in ("GET", "HEAD"):
        status, body = "405 Method Not Allowed", {"status": "only GET and HEAD"}
    elif path == "/livez":
        status, body = _said(health.live, "live", health.problems)
    elif path == "/readyz":
        status, body = _said(health.ready and health.live, "ready", health.problems)
    else:
        status, body = "404 Not Found", {"status": "there are /livez and /readyz"}
    data = json.dumps(body).encode() + b"\n"
    lines = (
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        "Cache-Control: no-store",
        "Connection: close",
        f"Content-Length: {len(data)}",
        "\r\n",
    )
    return "\r\n".join(lines).encode() + (data if method != "HEAD" else b"")


def _said(yes: bool, word: str, problems: Mapping[str, str]) -> tuple[str, dict[str, object]]:
    if yes:
        return "200 OK", {"status": word}
    return "503 Service Unavailable", {"status": f"not {word}", "problems": dict(problems)}
