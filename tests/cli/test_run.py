"""`amqpflow run` as a service manager runs it: signals, exit codes, and what is logged."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from amqpflow import Topology
from amqpflow.rabbitmq.address import BrokerAddress
from tests.shop import Shop
from tests.topologies import connected
from tests.waiting import until

SHOP = """\
version: 1
name: shop
vhost: ${AMQPFLOW_VHOST:?the virtual host of the test}
retry_policies:
  quick: {delays: [100ms]}
queues:
  orders: {retry: quick}
"""

SERVICE = """\
import asyncio
import time

from amqpflow import Consumer, Message, Park, Retry

consumer = Consumer("shop.yaml")
other = Consumer("shop.yaml")
not_a_consumer = 7


@consumer.handler("orders", concurrency=1, prefetch=5)
async def handle(message: Message) -> None:
    print("started", message.message_id, flush=True)
    if message.message_id == "secret":
        raise Park(f"no account for {message.message_id}")
    await asyncio.sleep(1.0)
    print("finished", message.message_id, flush=True)


@other.handler("orders")
def in_a_thread(message: Message) -> None:
    print("started", message.message_id, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A directory with a service and its topology."""
    (tmp_path / "shop.yaml").write_text(SHOP)
    (tmp_path / "service.py").write_text(SERVICE)
    (tmp_path / "broken.py").write_text("import amqpflow\n1 / 0\n")
    (tmp_path / "needs.py").write_text("import no_such_module\n")
    return tmp_path


def environment(address: BrokerAddress | None) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AMQPFLOW_", "RABBITMQ_", "CLOUDAMQP_"))}
    where = {"AMQPFLOW_URL": address.url, "AMQPFLOW_VHOST": address.vhost} if address else {"AMQPFLOW_VHOST": "v"}
    return {**clean, **where, "COLUMNS": "120"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "amqpflow", "run", *arguments]


class Run:
    """A running `amqpflow run`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            Thread(target=self._read, args=(process.stdout, self.out)),
            Thread(target=self._read, args=(process.stderr, self.err)),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        lines.extend(iter(stream.readline, ""))

    async def says(self, line: str) -> None:
        await until(lambda: f"{line}\n" in self.out or self.process.poll() is not None)
        assert f"{line}\n" in self.out, "".join(self.err)

    async def ends(self, within: float = 20) -> int:
        return int(await asyncio.to_thread(self.process.wait, within))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def running(service: Path, address: BrokerAddress, *arguments: str) -> Iterator[Run]:
    process = subprocess.Popen(
        command(*arguments),
        cwd=service,
        env=environment(address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = Run(process)
    try:
        yield run
    finally:
        run.close()


def scenario(service: Path, address: BrokerAddress, steps: Any) -> None:
    """Put the topology on the broker and take the steps."""

    async def go() -> None:
        compiled = Topology.load(service / "shop.yaml", environ=environment(address)).compiled
        connection = await connected(address, compiled)
        try:
            await steps(Shop(address, compiled, connection))
        finally:
            await connection.close()

    asyncio.run(go())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_exit_code_is_0(vhost: BrokerAddress, service: Path, number: signal.Signals) -> None:
    async def steps(scene: Shop) -> None:
        with running(service, vhost, "service:consumer") as run:
            await scene.publish("m1", "m2", "m3")
            await run.says("started m1")
            run.process.send_signal(number)
            assert await run.ends() == 0
            await run.says("finished m1")
            assert "started m2\n" not in run.out
        left = [each.header.properties.message_id for each in await scene.take("orders")]
        assert left == ["m2", "m3"]

    scenario(service, vhost, steps)


@pytest.mark.one_broker
def test_a_second_signal_stops_at_once(vhost: BrokerAddress, service: Path) -> None:
    async def steps(scene: Shop) -> None:
        for target in ("service:consumer", "service:other"):
            with running(service, vhost, target) as run:
                await scene.publish("m1")
                await run.says("started m1")
                run.process.send_signal(signal.SIGTERM)
                await until(lambda run=run: any("second signal" in line for line in run.err))  # type: ignore[misc]
                run.process.send_signal(signal.SIGTERM)
                assert await run.ends(within=5) == 130
                assert "finished m1\n" not in run.out
            await until(lambda: scene.depth("orders"))
            assert [each.header.properties.message_id for each in await scene.take("orders")] == ["m1"]

    scenario(service, vhost, steps)


@pytest.mark.one_broker
def test_handlers_that_do_not_finish_are_given_back_and_their_threads_hold_nothing_up(
    vhost: BrokerAddress, service: Path
) -> None:
    async def steps(scene: Shop) -> None:
        with running(service, vhost, "service:other", "--shutdown-timeout", "200ms") as run:
            await scene.publish("m1")
            await run.says("started m1")
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends(within=10) == 0
        assert [each.header.properties.message_id for each in await scene.take("orders")] == ["m1"]

    scenario(service, vhost, steps)


@pytest.mark.one_broker
def test_json_logs_parse_and_hold_neither_body_nor_header(vhost: BrokerAddress, service: Path) -> None:
    async def steps(scene: Shop) -> None:
        arguments = ("service:consumer", "--log-format", "json", "--log-level", "debug")
        with running(service, vhost, *arguments) as run:
            await scene.publish("secret", body=b"card 4242", headers={"token": "hunter2"}, correlation_id="c-1")
            await run.says("started secret")
            await until(lambda: scene.depth("orders.parking"))
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends() == 0
        lines = [json.loads(line) for line in run.err]
        text = "".join(run.err)
        assert "4242" not in text
        assert "hunter2" not in text
        assert vhost.password == "guest" or vhost.password not in text
        (parked,) = [line for line in lines if line.get("outcome") == "parked"]
        assert parked["level"] == "warning"
        assert parked["queue"] == "orders"
        assert parked["message_id"] == "secret"
        assert parked["correlation_id"] == "c-1"
        assert parked["attempt"] == 1
        assert {"timestamp", "logger", "event"} <= parked.keys()

    scenario(service, vhost, steps)


@pytest.mark.one_broker
def test_a_message_cannot_write_to_the_terminal(vhost: BrokerAddress, service: Path) -> None:
    async def steps(scene: Shop) -> None:
        with running(service, vhost, "service:consumer", "--log-level", "debug") as run:
            await scene.publish("\x1b[2J\u202eevil")
            await until(lambda: any("acked" in line for line in run.err))
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends() == 0
        assert "\x1b" not in "".join(run.err)
        assert "\u202e" not in "".join(run.err)

    scenario(service, vhost, steps)


@pytest.mark.one_broker
def test_without_its_topology_it_says_which_command_mends_it(vhost: BrokerAddress, service: Path) -> None:
    done = finished(service, vhost, "service:consumer")
    assert done.returncode == 4
    assert "queue orders is missing" in done.stderr
    assert "amqpflow apply shop.yaml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.one_broker
def test_a_signal_while_it_waits_for_its_topology_ends_it(vhost: BrokerAddress, service: Path) -> None:
    async def steps() -> None:
        with running(service, vhost, "service:consumer", "--wait-for-topology", "60s") as run:
            await until(lambda: any("waiting for the topology" in line for line in run.err))
            run.process.send_signal(signal.SIGTERM)
            await run.ends(within=10)

    asyncio.run(steps())


def finished(service: Path, address: BrokerAddress | None, *arguments: str, **more: str) -> Any:
    return subprocess.run(
        command(*arguments),
        cwd=service,
        env={**environment(address), **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_broker_that_is_down_is_one_line(service: Path) -> None:
    done = finished(service, None, "service:consumer", AMQPFLOW_URL="amqp://app:hidden@127.0.0.1:1/v")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert "127.0.0.1:1" in line
    assert "hidden" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("service", ["'service' is not MODULE:CONSUMER", "service:consumer"]),
        ("service:", ["is not MODULE:CONSUMER"]),
        ("missing:consumer", ["there is no module 'missing'", "--app-dir"]),
        ("service:consume", ["module 'service' has no 'consume'", "consumer, other"]),
        ("service:not_a_consumer", ["is a int, not an amqpflow.Consumer"]),
        ("service:consumer.missing", ["has no 'consumer.missing'"]),
    ],
)
def test_a_target_that_is_none_is_wrong_usage(service: Path, target: str, words: Sequence[str]) -> None:
    done = finished(service, None, target)
    assert done.returncode == 64
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("target", ["broken:consumer", "needs:consumer"])
def test_a_bug_in_the_service_shows_its_traceback(service: Path, target: str) -> None:
    done = finished(service, None, target)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert ("ZeroDivisionError" in done.stderr) or ("no_such_module" in done.stderr)


@pytest.mark.parametrize("option", ["--wait-for-topology", "--shutdown-timeout"])
def test_a_duration_without_a_unit_is_wrong_usage(service: Path, option: str) -> None:
    done = finished(service, None, "service:consumer", option, "60")
    assert done.returncode == 64
    assert "60s" in done.stderr


def test_a_topology_file_with_errors_is_shown_without_a_traceback(service: Path) -> None:
    (service / "shop.yaml").write_text(SHOP.replace("quick: {delays", "quick: {delay"))
    done = finished(service, None, "service:consumer")
    assert done.returncode == 1
    assert "shop.yaml:5:" in done.stderr
    assert "delays" in done.stderr
    assert "Traceback" not in done.stderr


def test_app_dir_is_where_the_module_is(service: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "shop.yaml").write_text(SHOP)
    done = finished(elsewhere, None, "service:missing", "--app-dir", str(service))
    assert "consumer, other" in done.stderr
