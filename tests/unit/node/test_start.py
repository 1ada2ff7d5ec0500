"""Which broker is used, and what is said when there is none."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from amqpflow.errors import BrokerUnavailableError, UsageError
from amqpflow.node.locate import Missing
from amqpflow.node.start import BrokerContext, Found, find_broker, how_to_install
from amqpflow.rabbitmq.address import BrokerAddress
from tests.unit.node.test_locate import DEBIAN, distribution, executable


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it."""
    monkeypatch.setattr("amqpflow.node.start.find_engine", lambda: Missing(reason="no Docker engine answers"))
    return tmp_path


@pytest.fixture
def local(empty: Path) -> Path:
    """A machine with a RabbitMQ."""
    distribution(empty / DEBIAN)
    executable(empty / "usr/bin/erl")
    return empty


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch, empty: Path) -> Path:
    """A machine with Docker alone."""
    monkeypatch.setattr("amqpflow.node.start.find_engine", lambda: "99.1")
    return empty


def test_a_given_url_comes_first(local: Path) -> None:
    found = find_broker("amqp://u:secret@there/", root=local, environ={})
    assert (found.origin, found.description) == ("given", "amqp://u:***@there/")


@pytest.mark.parametrize("name", ["AMQPFLOW_URL", "AMQPFLOW_URL_FILE", "RABBITMQ_URL", "CLOUDAMQP_URL"])
def test_a_broker_that_the_environment_names_is_not_taken(name: str, local: Path) -> None:
    assert find_broker(root=local, environ={name: "amqp://production/"}).origin == "local"


def test_then_a_local_rabbitmq(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amqpflow.node.start.find_engine", lambda: "99.1")
    found = find_broker(root=local, environ={})
    assert (found.origin, found.version) == ("local", "3.10.8")


def test_then_docker(docker: Path) -> None:
    found = find_broker(root=docker, environ={})
    assert (found.origin, found.version) == ("docker", "4.3")


def test_nothing_names_what_was_looked_for_and_the_one_command(empty: Path) -> None:
    with pytest.raises(BrokerUnavailableError) as none:
        find_broker(root=empty, environ={})
    assert "no rabbitmq-server is installed, and no Docker engine answers" in str(none.value)
    assert none.value.hint.startswith("install")


def test_data_is_kept_by_a_local_node_alone(docker: Path) -> None:
    with pytest.raises(UsageError, match="private node only"):
        find_broker("amqp://there/", keep=docker / "data", root=docker, environ={})
    with pytest.raises(UsageError, match="local RabbitMQ only"):
        find_broker(keep=docker / "data", root=docker, environ={})
    assert not (docker / "data").exists()


@pytest.mark.parametrize(
    ("tools", "platform", "command"),
    [
        ({"apt-get"}, "linux", "apt-get install --no-install-recommends rabbitmq-server"),
        ({"brew"}, "darwin", "brew install rabbitmq"),
        ({"brew"}, "linux", "brew install rabbitmq"),
        ({"dnf"}, "linux", "dnf install rabbitmq-server"),
        (set(), "linux", "install rabbitmq-server (https://"),
    ],
)
def test_the_one_command_is_this_systems(tools: set[str], platform: str, command: str) -> None:
    assert command in how_to_install(lambda tool: tool if tool in tools else None, platform)


def test_a_given_broker_that_is_down_is_an_error_without_its_password() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"amqp://u:secret@127.0.0.1:{bound.getsockname()[1]}/"
        with (
            pytest.raises(BrokerUnavailableError, match="no RabbitMQ answers at 127") as down,
            BrokerContext(find_broker(url, environ={})),
        ):
            pass
    assert "leave the URL out" in down.value.hint
    assert "secret" not in str(down.value) + down.value.hint


def test_what_answers_but_is_no_rabbitmq_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"amqp://127.0.0.1:{server.getsockname()[1]}/"
        with (
            pytest.raises(BrokerUnavailableError, match="does not speak AMQP 0-9-1"),
            BrokerContext(find_broker(url, environ={})),
        ):
            pass
        thread.join()


class Slow:
    """A node whose start takes until it is stopped."""

    version = description = ""

    def __init__(self) -> None:
        self.begun, self.stopped = threading.Event(), threading.Event()

    def start(self) -> BrokerAddress:
        self.begun.set()
        self.stopped.wait()
        raise BrokerUnavailableError("stopped while starting")

    def wait(self) -> None: ...

    def stop(self) -> None:
        self.stopped.set()


def test_a_cancelled_start_leaves_nothing_running() -> None:
    node = Slow()
    context = BrokerContext(Found(origin="local", version="", description="", node=node))

    async def enter() -> None:
        async with context:
            pass

    async def main() -> None:
        entering = asyncio.create_task(enter())
        await asyncio.to_thread(node.begun.wait)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering

    asyncio.run(main())
    assert node.stopped.is_set()
