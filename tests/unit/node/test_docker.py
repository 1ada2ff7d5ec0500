"""The container, against an engine that only pretends: no Docker is needed, and none is proven to work."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqpflow.errors import BrokerUnavailableError
from amqpflow.node.docker import IMAGE, DockerNode, find_engine
from amqpflow.node.locate import Missing
from tests.unit.node.docker_engine import Engine, serve

pytest.importorskip("testcontainers", reason="the extra `docker` is not installed")


@pytest.fixture(autouse=True)
def no_reaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second container, and the address of the host even where the tests run in a container themselves."""
    from testcontainers.core.config import ConnectionMode, testcontainers_config

    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    monkeypatch.setattr(testcontainers_config, "connection_mode_override", ConnectionMode.docker_host)


@pytest.fixture
def no_broker() -> Iterator[int]:
    """A port at which every connection is refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_broker: int) -> Iterator[Engine]:
    engine = Engine({5672: no_broker, 15672: no_broker})
    with serve(engine, tmp_path / "docker.sock") as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        yield engine


def test_an_engine_that_answers_is_used(engine: Engine) -> None:
    assert find_engine() == "99.1"


def test_a_client_without_an_engine_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    missing = find_engine()
    assert isinstance(missing, Missing)
    assert missing.reason == f"no Docker engine answers at unix://{tmp_path}/none.sock (No such file or directory)"


def test_an_engine_that_is_silent_is_given_up_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "docker.sock"))
        silent.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        began = time.monotonic()
        assert isinstance(find_engine(timeout=1), Missing)
        assert time.monotonic() - began < 30  # Docker's own is 60 s


def test_without_the_extra_the_reason_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amqpflow.node.docker.find_spec", lambda _: None)
    assert find_engine() == Missing(reason="Docker is used with the extra: pip install 'amqpflow[docker]'")


def test_the_container_is_bound_to_loopback_and_removed_when_the_broker_does_not_come_up(engine: Engine) -> None:
    engine.looks_while_running = 10
    with pytest.raises(BrokerUnavailableError, match="while it was starting") as failure:
        DockerNode("99.1").start()
    assert "last words" in failure.value.hint
    assert engine.created["Image"] == IMAGE
    assert engine.created["HostConfig"]["PortBindings"] == {
        "5672/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
        "15672/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
    }
    assert engine.environ["RABBITMQ_DEFAULT_USER"] == "amqpflow"
    assert len(engine.environ["RABBITMQ_DEFAULT_PASS"]) >= 16
    assert engine.removed


def test_an_image_that_cannot_be_pulled_is_one_clear_line(engine: Engine) -> None:
    engine.image_is_there = False
    with pytest.raises(BrokerUnavailableError, match=f"Docker could not start {IMAGE}: .*no route to the registry"):
        DockerNode("99.1").start()


def test_a_container_whose_start_was_stopped_before_docker_had_made_it_is_removed(engine: Engine) -> None:
    node = DockerNode("99.1")
    engine.while_creating = node.stop  # in the engine's thread, as a second thread of ours would
    with pytest.raises(BrokerUnavailableError):
        node.start()
    assert engine.removed
