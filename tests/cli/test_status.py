"""`amqpflow status` as users run it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from amqpflow import Topology
from amqpflow.cli.render.parked import age_text
from amqpflow.cli.render.status import fitting
from amqpflow.picture.measure import shortened
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from tests.brokers.management import Management, as_user
from tests.commands import AMQPFLOW, Result, run, start
from tests.parked import delivered, park, publish
from tests.topologies import declare
from tests.waiting import until

SHOP = """
version: 1
name: shop
retry_policies:
  standard: {delays: [1h, 2h]}
queues:
  orders: {retry: standard}
  audit: {retry: none}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    return file


def arguments(file: Path, address: BrokerAddress, *options: str) -> list[str]:
    base = options if "--management-url" in options else ("--management-url", Management(address).base, *options)
    return ["status", str(file), "--url", address.url, *base]


def status(file: Path, address: BrokerAddress, *options: str, code: int = 0, by: Callable[..., Result] = run) -> str:
    done = by(*arguments(file, address, *options), env=os.environ)
    assert done.code == code, done.err
    return done.out


def as_json(file: Path, address: BrokerAddress, *options: str, code: int = 0, by: Callable[..., Result] = run) -> Any:
    return json.loads(status(file, address, "-o", "json", *options, code=code, by=by))


def fill(file: Path, address: BrokerAddress) -> None:
    """Three ready, two in the first retry queue, one parked; nothing published is lost on the way."""
    compiled = Topology.load(file).compiled

    async def scenario() -> None:
        async with await connect(address, name="amqpflow test") as connection:
            await declare(connection, compiled)
            message = delivered("orders").properties
            await publish(connection, "orders", message, message, message)
            await publish(connection, "orders.retry.1h", message, message)
            await park(connection, compiled, [delivered("orders", message_id="parked")])

    asyncio.run(scenario())


def test_depths_are_exact_and_alerts_come_first(vhost: BrokerAddress, shop: Path) -> None:
    fill(shop, vhost)
    found = as_json(shop, vhost, "--oldest")
    orders, audit = found["queues"]
    assert (orders["ready"], orders["exact"], orders["waiting"], audit["ready"]) == (3, True, 2, 0)
    assert [(tier["ready"], tier["due_within_ms"]) for tier in orders["retry_queues"]] == [(2, 3_600_000), (0, None)]
    parking = {each["queue"]: each for each in found["parking"]}
    assert parking["orders.parking"]["ready"] == 1
    assert parking["orders.parking"]["oldest_parked_at"].startswith("2026-")
    assert parking["audit.parking"]["oldest_parked_at"] is None
    assert "no-consumer" in [alert["code"] for alert in found["alerts"]]
    text = status(shop, vhost, "--detailed-exitcode", code=2)
    assert text.index("! queue orders: 3 messages ready, and no consumer") < text.index("WORK QUEUE")
    assert re.search(r"^orders +3 +\S+ +2 +\S+ +1 ", text, re.MULTILINE)
    assert "1h: 2" in text
    assert "\x1b" not in text


@pytest.mark.one_broker
def test_what_rabbitmq_retains_is_an_alert(vhost: BrokerAddress, shop: Path) -> None:
    """A retry queue whose work queue is gone: RabbitMQ keeps the message, where no depth shows it (fact 4.5)."""
    file = shop.with_name("short.yaml")
    file.write_text(SHOP.replace("[1h, 2h]", "[50ms]"))
    compiled = Topology.load(file).compiled

    async def scenario() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            await declare(connection, compiled)
            Management(vhost).delete("queues", vhost.vhost, "orders")
            await publish(connection, "orders.retry.50ms", delivered("orders").properties)

            def codes() -> set[str]:
                return {alert["code"] for alert in as_json(file, vhost, by=start)["alerts"]}

            await until(lambda: {"missing", "retained"} <= codes(), timeout=60, every=0.5)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_over_amqp_alone_it_shows_what_can_be_seen(
    vhost: BrokerAddress, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shop, vhost)
    monkeypatch.setattr(BrokerAddress, "management_candidates", lambda _: ("http://127.0.0.1:9",))
    done = run("status", shop, "--url", vhost.url, "-o", "json", env=os.environ)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["complete"] is False
    orders = found["queues"][0]
    assert (orders["ready"], orders["consumers"], orders["unacked"], orders["waiting"]) == (3, 0, None, 2)


@pytest.mark.one_broker
def test_before_apply_everything_is_missing_and_said_once(vhost: BrokerAddress, shop: Path) -> None:
    found = as_json(shop, vhost, "--detailed-exitcode", code=2)
    assert [(alert["code"], alert["object"]) for alert in found["alerts"]] == [
        ("missing", "queues orders, orders.retry.1h, orders.retry.2h and 3 more")
    ]
    assert found["queues"][0]["exists"] is False
    text = status(shop, vhost)
    assert "\n2 work queues.\n" in text, text


@pytest.mark.one_broker
def test_off_a_terminal_watching_prints_one_status_a_line_until_it_is_stopped(vhost: BrokerAddress, shop: Path) -> None:
    fill(shop, vhost)
    watching = (*AMQPFLOW, *arguments(shop, vhost, "--watch", "--interval", "100ms", "-o", "json"))
    with subprocess.Popen(watching, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert {line["queues"][0]["ready"] for line in lines} == {3}
    assert "Traceback" not in err


@pytest.mark.one_broker
def test_watching_survives_a_password_that_is_rotated(vhost: BrokerAddress, shop: Path, tmp_path: Path) -> None:
    """While the file lags behind the broker it says so, and goes on with the new password."""
    fill(shop, vhost)
    management, name = Management(vhost), f"amqpflow-test-{uuid4().hex[:8]}"
    base, files = (
        management.base,
        {"AMQPFLOW_URL_FILE": tmp_path / "url", "AMQPFLOW_MANAGEMENT_URL_FILE": tmp_path / "m"},
    )

    def rotate(password: str) -> None:
        management.put("users", name, body={"password": password, "tags": "management"})
        management.put("permissions", vhost.vhost, name, body={"configure": ".*", "write": ".*", "read": ".*"})

    def mount(password: str) -> None:
        values = (as_user(vhost, name, password).url, base.replace("://", f"://{name}:{password}@"))
        for file, value in zip(files.values(), values, strict=True):
            file.with_suffix(".new").write_text(value)
            file.with_suffix(".new").replace(file)

    rotate("old")
    mount("old")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AMQPFLOW_")}
    environment |= {key: str(file) for key, file in files.items()}
    watching = [*AMQPFLOW, "status", str(shop), "--watch", "--interval", "100ms", "-o", "json"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    try:
        with subprocess.Popen(watching, env=environment, **pipes) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert json.loads(process.stdout.readline())["queues"][0]["ready"] == 3
            rotate("new")
            assert "refuses the user or the password; retrying" in process.stderr.readline()
            mount("new")
            mounted = datetime.now(UTC)
            while datetime.fromisoformat(json.loads(process.stdout.readline())["taken_at"]) < mounted:
                pass
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
        assert process.returncode == 0
    finally:
        management.delete("users", name)


def read_until(terminal: int, wanted: Iterator[str] | list[str]) -> str:
    seen, deadline = "", time.monotonic() + 60
    while not all(word in seen for word in wanted):
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.5)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")  # a character may be cut in two
    return seen


@pytest.mark.one_broker
def test_on_a_terminal_it_is_a_live_table_and_ctrl_c_leaves_the_terminal_as_it_was(
    vhost: BrokerAddress, shop: Path
) -> None:
    fill(shop, vhost)
    terminal, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "90", "LINES": "30"}
    watching = (*AMQPFLOW, *arguments(shop, vhost, "--watch", "--interval", "100ms"))
    process = subprocess.Popen(watching, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    try:
        read_until(terminal, ["\x1b[?1049h", "\x1b[?25l", "WORK QUEUE"])
        process.send_signal(signal.SIGINT)
        after = read_until(terminal, ["\x1b[?1049l", "\x1b[?25h", "WORK QUEUE"])
        assert process.wait(timeout=120) == 0
        assert "Traceback" not in after
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(terminal)


def test_an_interval_that_is_none_is_wrong_usage(shop: Path) -> None:
    for interval in ("2", "1ms"):
        done = run("status", shop, "--watch", "--interval", interval, env=os.environ)
        assert (done.code, "--interval" in done.err) == (64, True)


def test_long_names_lose_their_middle() -> None:
    assert shortened("orders.payment", 14) == "orders.payment"
    assert shortened("orders.payment.eu", 9) == "orde…t.eu"
    assert fitting(["5s: 1", "30s: 2", "5m: 3"], 18) == "5s: 1 and 2 more"
    assert [age_text(1000 * each) for each in (5, 60, 7200, 200_000)] == ["5s", "1m", "2h", "2d"]
