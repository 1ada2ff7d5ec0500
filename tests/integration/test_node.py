"""A private node, started for real from the RabbitMQ that is installed here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from amqpflow.errors import BrokerUnavailableError, RefusedError
from amqpflow.node import BrokerContext, create_virtual_host, find_broker, start_broker
from amqpflow.node.locate import Installation, locate
from amqpflow.node.ports import choose
from amqpflow.node.private import PrivateNode
from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.brokers.processes import belonging_to, wait_until_gone
from tests.waiting import until


@pytest.fixture(scope="module")
def installation() -> Installation:
    found = locate()
    if not isinstance(found, Installation):
        pytest.skip(f"a private node needs a RabbitMQ installed here: {found.reason}")
    return found


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary nodes go in this test."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    return directory


def local(keep: Path | None = None) -> BrokerContext:
    return start_broker(keep=keep, environ={"PATH": os.environ["PATH"]})


def queue_with_a_message(management: Management) -> None:
    management.put("queues", "/", "q", body={"durable": True, "arguments": {"x-queue-type": "quorum"}})
    message = {"properties": {"delivery_mode": 2}, "routing_key": "q", "payload": "kept", "payload_encoding": "string"}
    assert management.call("POST", "exchanges", "/", "amq.default", "publish", body=message) == {"routed": True}


def first_message(management: Management) -> Any:
    look = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
    found = management.call("POST", "queues", "/", "q", "get", body=look)
    return found[0]["payload"] if found else None


def test_a_node_is_on_loopback_with_a_password_of_its_own_and_leaves_nothing(
    installation: Installation, temporary: Path
) -> None:
    with local() as broker:
        (directory,) = temporary.iterdir()
        assert broker.origin == "local"
        assert broker.version == installation.version
        assert broker.address.host == "127.0.0.1"
        assert broker.address.password not in broker.description
        assert Management(broker.address).get("overview")["rabbitmq_version"] == broker.version
        with pytest.raises(AssertionError, match="401"):
            Management(BrokerAddress(url="amqp://", source="", management_url=broker.address.management_url)).get(
                "overview"
            )
        assert open_to_others(directory) == []
        assert listening_beyond_loopback(directory) == []
        assert len(belonging_to(directory)) >= 3  # keeper, epmd, Erlang
    assert belonging_to(directory) == {}
    assert list(temporary.iterdir()) == []


def open_to_others(directory: Path) -> list[Path]:
    """The files and directories that other users may use."""
    found = []
    for parent, directories, files in os.walk(directory):
        for path in (Path(parent, name) for name in (*directories, *files)):
            with contextlib.suppress(FileNotFoundError):  # the node has deleted it meanwhile
                if path.stat().st_mode & 0o077:
                    found.append(path)
    return found


def listening_beyond_loopback(directory: Path) -> list[str]:
    """The listening addresses, of the node's processes, that other machines could reach."""
    sockets = set()
    for process in belonging_to(directory):
        with contextlib.suppress(FileNotFoundError):  # ended meanwhile
            for file in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    sockets.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = []
    for table, loopback in (("tcp", "0100007F"), ("tcp6", "0" * 24 + "01000000")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local_address, _, state, *rest = line.split()
            if state == "0A" and rest[5] in sockets and not local_address.startswith(loopback):
                found.append(local_address)
    return found


def test_two_nodes_at_once(installation: Installation, temporary: Path) -> None:
    async def main() -> None:
        async with local() as first, local() as second:
            assert first.address.port != second.address.port
            for broker in (first, second):
                assert await asyncio.to_thread(Management(broker.address).get, "overview")

    asyncio.run(main())
    assert list(temporary.iterdir()) == []


def test_kept_data_is_there_next_time_under_the_same_address(installation: Installation, tmp_path: Path) -> None:
    directory = tmp_path / "my node"
    with local(directory) as broker:
        first = broker.address
        queue_with_a_message(Management(first))
        with pytest.raises(RefusedError, match="in use by another node"), local(directory):
            pass
    assert belonging_to(directory) == {}
    with local(directory) as broker:
        assert broker.address.url == first.url
        # a quorum queue answers before it has read its log again
        assert asyncio.run(until(lambda: first_message(Management(broker.address)))) == "kept"


STARTER = """
import sys
from amqpflow.node import start_broker
with start_broker(environ={"PATH": sys.argv[1]}) as broker:
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_node_ends_with_its_starter_however_that_ends(
    installation: Installation, tmp_path: Path, number: signal.Signals
) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, os.environ["PATH"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"ready\n"
        (directory,) = tmp_path.iterdir()
        assert belonging_to(directory)
        starter.send_signal(number)
        starter.wait()
    wait_until_gone(directory)


def test_a_node_ends_although_a_forked_process_holds_its_pipe(installation: Installation, tmp_path: Path) -> None:
    """A process that was forked without exec (multiprocessing) has every pipe of the starter open."""
    script = """
import os, sys, signal
from amqpflow.node import start_broker
with start_broker(environ={"PATH": sys.argv[1]}) as broker:
    child = os.fork()
    if child == 0:
        signal.pause()
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("needs Linux' pidfd")
    starter = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, os.environ["PATH"]],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with starter:
        assert starter.stdout is not None
        child = int(starter.stdout.readline())
        try:
            starter.wait()
            (directory,) = tmp_path.iterdir()
            gone = threading.Event()
            while belonging_to(directory).keys() - {child} and not gone.wait(0.05):
                pass
        finally:
            os.kill(child, signal.SIGKILL)
    wait_until_gone(directory)


def test_the_node_dies_with_its_keeper(installation: Installation, temporary: Path) -> None:
    context = local()
    with context:
        (directory,) = temporary.iterdir()
        (keeper,) = [pid for pid, command in belonging_to(directory).items() if "keeper.py" in command]
        os.kill(keeper, signal.SIGKILL)
        with pytest.raises(BrokerUnavailableError, match="has ended"):
            context.wait()
    wait_until_gone(directory)


def test_a_node_that_ends_by_itself_is_noticed_with_its_last_words(installation: Installation, temporary: Path) -> None:
    context = local()
    with context:
        (directory,) = temporary.iterdir()
        (erlang,) = [pid for pid, command in belonging_to(directory).items() if "beam" in command]
        os.kill(erlang, signal.SIGKILL)
        with pytest.raises(BrokerUnavailableError, match="has ended") as ended:
            context.wait()
        assert ended.value.hint
    wait_until_gone(directory)


def test_a_node_that_cannot_boot_says_why(installation: Installation, tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    with local(directory):
        pass
    (directory / "advanced.config").write_text("no Erlang")
    with pytest.raises(BrokerUnavailableError, match="ended while it was starting") as failure:
        local(directory).__enter__()
    assert "failed_to_read_advanced_configuration_file" in failure.value.hint
    assert len(failure.value.hint.splitlines()) <= 12
    assert belonging_to(directory) == {}


def test_a_port_that_was_taken_meanwhile_costs_another_try(
    installation: Installation, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = choose()
    with socket.create_server(("127.0.0.1", wanted.amqp)):
        answers = iter([wanted])
        monkeypatch.setattr("amqpflow.node.private.free_ports.choose", lambda last: next(answers, None) or choose(last))
        with BrokerContext(find_broker(environ={"PATH": os.environ["PATH"]})) as broker:
            assert broker.address.port != wanted.amqp
    assert list(temporary.iterdir()) == []


def test_a_node_that_does_not_answer_in_time_is_ended(installation: Installation, temporary: Path) -> None:
    with pytest.raises(BrokerUnavailableError, match=r"did not answer within 0\.1 s"):
        PrivateNode(installation, ready_within=0.1).start()
    assert list(temporary.iterdir()) == []


def test_variables_of_another_rabbitmq_do_not_leak_into_it(
    installation: Installation, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_NODENAME", "somebody@else")
    monkeypatch.setenv("RABBITMQ_CONFIG_FILE", "/nowhere.conf")
    monkeypatch.setenv("NODENAME", "somebody@else")
    monkeypatch.setenv("ERL_EPMD_PORT", "1")
    monkeypatch.setenv("ERL_FLAGS", "-no_such_flag_with_meaning")
    with local() as broker:
        assert Management(broker.address).get("overview")["node"].startswith("amqpflow-")


def test_a_virtual_host_is_made_for_our_user(installation: Installation, temporary: Path) -> None:
    with local() as broker:
        create_virtual_host(broker.address, "a/b c")
        assert Management(broker.address).get("permissions", "a/b c", broker.address.user)["write"] == ".*"
