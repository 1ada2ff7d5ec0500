"""As much of a Docker engine as starting one container takes, on a unix socket. It starts nothing.

The container's ports are those of whatever the test says; what was asked for is kept in `created`.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from amqpflow.node.docker import IMAGE

CONTAINER = "c0ffee" * 10


class Engine:
    """What the engine was asked, and what it answers."""

    def __init__(self, ports: Mapping[int, int]) -> None:
        self.ports = ports  #: of the container -> of the host
        self.looks_while_running = 1_000_000  #: after so many looks at the container it has exited
        self.image_is_there = True
        self.created: dict[str, Any] = {}
        self.while_creating: Callable[[], None] = lambda: None
        self.removed = False
        self.log = b"the broker's last words\n"
        self.environ: dict[str, str] = {}

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match method, path.split("/")[2:]:
            case "GET", ["version"]:
                return 200, {"Version": "99.1", "ApiVersion": "1.44", "MinAPIVersion": "1.24"}
            case "GET", ["images", *_] if self.image_is_there:
                return 200, {"Id": "sha256:1", "RepoTags": [IMAGE]}
            case "GET", ["images", *_]:
                return 404, {"message": f"No such image: {IMAGE}"}
            case "POST", ["images", "create"]:
                return 500, {"message": "no route to the registry"}
            case "POST", ["containers", "create"]:
                self.created = body
                self.while_creating()
                self.environ = dict(entry.split("=", 1) for entry in body["Env"])
                return 201, {"Id": CONTAINER, "Warnings": []}
            case "POST", ["containers", _, "start"]:
                return 204, None
            case "GET", ["containers", _, "json"]:
                return 200, self.container()
            case "GET", ["containers", "json"]:
                return 200, [self.container()]
            case "DELETE", ["containers", _]:
                self.removed = True
                return 204, None
        return 404, {"message": f"no such thing: {method} {path}"}

    def container(self) -> dict[str, Any]:
        self.looks_while_running -= 1
        running = self.looks_while_running >= 0
        bindings = {
            f"{inner}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}] for inner, port in self.ports.items()
        }
        return {
            "Id": CONTAINER,
            "Name": "/it",
            "State": {"Status": "running" if running else "exited", "Running": running},
            "HostConfig": {"NetworkMode": "default"},
            "NetworkSettings": {"Ports": bindings, "Networks": {}},
            "Config": {"Tty": True, "Image": IMAGE},
            "Image": "sha256:1",
        }


@contextmanager
def serve(engine: Engine, path: Path) -> Iterator[str]:
    """Serve the engine on a unix socket at `path`; yields its DOCKER_HOST."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            target = self.path.partition("?")[0]
            target = target if target.startswith("/v1.") else f"/v1{target}"
            if target.endswith("/logs"):
                self.reply(200, engine.log)
            else:
                status, value = engine.answer(self.command, target, body)
                self.reply(status, b"" if value is None else json.dumps(value).encode())

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def reply(self, status: int, data: bytes) -> None:
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

        def address_string(self) -> str:
            return "test"

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Docker's client hangs up when it has read enough."""

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()
