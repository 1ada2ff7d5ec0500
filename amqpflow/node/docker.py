"""A throw-away RabbitMQ in Docker, through testcontainers (the extra `docker`).

testcontainers' own RabbitMqContainer wants pika and exposes AMQP alone, so the plain container is used. Its reaper ends
the container when this process is gone. A Docker client without an engine is a normal state of a machine: an engine
counts when it answers within two seconds.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from amqpflow.errors import BrokerUnavailableError
from amqpflow.rabbitmq.address import BrokerAddress

from .greeting import greet
from .locate import Missing
from .management_api import management_answers

IMAGE = "rabbitmq:4.3-management"
_AMQP, _MANAGEMENT = 5672, 15672
_PAUSE = 0.2  #: seconds between two checks whether it answers
_LOCAL = ("localhost", "127.0.0.1", "::1")


def find_engine(*, timeout: int = 2) -> str | Missing:
    """Return the version of the Docker engine that answers within `timeout` seconds, or why there is none."""
    if find_spec("testcontainers") is None:
        return Missing(reason="Docker is used with the extra: pip install 'amqpflow[docker]'")
    from testcontainers.core.docker_client import DockerClient, get_docker_host

    host = get_docker_host() or "unix:///var/run/docker.sock"
    try:
        _knock(host, timeout)
        client = DockerClient(timeout=timeout).client
        try:
            version: str = client.version()["Version"]
        finally:
            client.close()
    except Exception as error:  # docker, requests and the operating system each have their own
        return Missing(reason=f"no Docker engine answers at {host} ({_first_line(error)})")
    return version


def _knock(host: str, timeout: int) -> None:
    """Connect and close, before Docker's client does so and leaves its socket open."""
    parts = urlsplit(host)
    if parts.scheme == "unix":
        with socket.socket(socket.AF_UNIX) as engine:
            engine.settimeout(timeout)
            engine.connect(parts.path)
    elif parts.scheme == "tcp" and parts.hostname:
        socket.create_connection((parts.hostname, parts.port or 2375), timeout=timeout).close()


class DockerNode:
    """One container: `start`, then `stop`, which may be called at any time and from any thread."""

    def __init__(self, engine: str, *, ready_within: float = 300.0) -> None:
        self.engine = engine
        self.ready_within = ready_within  #: seconds, after the image was pulled
        self.version = IMAGE.partition(":")[2].partition("-")[0]
        self._container: Any = None
        self._stopped = threading.Event()

    @property
    def description(self) -> str:
        return f"{IMAGE} in Docker {self.engine}"

    def start(self) -> BrokerAddress:
        """Start the container, pull its image if it is missing, and return when AMQP and the management API both
        answer.

        Raises:
            BrokerUnavailableError: Docker refused, or the broker ended or does not answer in time; with the end of its
                log.
        """
        user, password = "amqpflow", secrets.token_urlsafe(12)
        container: Any = None
        try:
            self._container = container = _container(user, password)
            container.start()
            host = container.get_container_host_ip()
            address = BrokerAddress(
                url=f"amqp://{user}:{password}@{host}:{container.get_exposed_port(_AMQP)}/",
                source="Docker",
                management_url=f"http://{host}:{container.get_exposed_port(_MANAGEMENT)}",
            )
            self._wait_until_ready(address, container)
        except BaseException as error:
            hint = _log_tail(container)
            self._container = None
            with contextlib.suppress(Exception):  # another thread's stop() may have come first, or too early to find it
                container.stop()
            if isinstance(error, BrokerUnavailableError) or not isinstance(error, Exception):
                raise
            raise BrokerUnavailableError(f"Docker could not start {IMAGE}: {_first_line(error)}", hint=hint) from error
        return address

    def _wait_until_ready(self, address: BrokerAddress, container: Any) -> None:
        deadline = time.monotonic() + self.ready_within
        while True:
            if self._stopped.is_set():
                raise BrokerUnavailableError("the container was stopped while it was starting")
            try:
                _, self.version = greet(address, timeout=5)
                if management_answers(address, timeout=5):
                    return
            except BrokerUnavailableError:
                pass  # not yet
            if _ended(container) or time.monotonic() > deadline:
                raise self._failure(container, "ended or did not answer while it was starting")
            self._stopped.wait(_PAUSE)

    def _failure(self, container: Any, what: str) -> BrokerUnavailableError:
        return BrokerUnavailableError(f"{self.description} {what}", hint=_log_tail(container))

    def wait(self) -> None:
        """Wait until the container ends by itself, which it should not.

        Raises:
            BrokerUnavailableError: always, in the end.
        """
        container = self._container
        if container is None:
            raise BrokerUnavailableError("the container is not running")
        while not _ended(container):
            self._stopped.wait(1.0)
        raise self._failure(container, "has ended")

    def stop(self) -> None:
        """Remove the container and its data, if there is one."""
        self._stopped.set()
        container, self._container = self._container, None
        if container is not None:
            container.stop()


def _ended(container: Any) -> bool:
    container.reload()
    return container.status not in ("created", "running")


def _log_tail(container: Any) -> str:
    try:
        output = b"".join(container.get_logs())
    except Exception:  # a log that cannot be read must not hide what went wrong
        return ""
    return "\n".join(output.decode("utf-8", "replace").splitlines()[-12:])


def _container(user: str, password: str) -> Any:
    from testcontainers.core.config import ConnectionMode
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(IMAGE)
    container.with_env("RABBITMQ_DEFAULT_USER", user).with_env("RABBITMQ_DEFAULT_PASS", password)
    client = container.get_docker_client()
    mode = client.get_connection_mode()
    # loopback, unless it cannot be reached: the engine is elsewhere, or this process is in a container beside it
    far = mode is ConnectionMode.gateway_ip or (mode is ConnectionMode.docker_host and client.host() not in _LOCAL)
    ports: dict[str, Any] = container.ports  # Docker's client takes (address, port) too, None being any free port
    for port in (_AMQP, _MANAGEMENT):
        ports[f"{port}/tcp"] = None if far else ("127.0.0.1", None)
    return container


def _first_line(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]
