"""`amqpflow run --workers` and the probes: several processes as one, watched from outside."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from amqpflow.node.ports import choose
from amqpflow.rabbitmq.address import BrokerAddress
from tests.cli.service_runs import environment, finished, running, scenario, service
from tests.commands import run
from tests.shop import Shop
from tests.waiting import until

__all__ = ["service"]  # a fixture

PIDS = """\
import os
import time

from amqpflow import Consumer, Message

consumer = Consumer("shop.yaml")


@consumer.handler("orders", concurrency=1, prefetch=1)
def handle(message: Message) -> None:
    print("pid", os.getpid(), flush=True)
    if message.message_id == "stuck":
        time.sleep(60)
"""

pytestmark = pytest.mark.one_broker


def free_port() -> int:
    """Below those that outgoing connections take, which other tests make before the service listens."""
    return choose().management


def probe(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Status 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except OSError:
        return 0, {}


async def answers(port: int, path: str, status: int, problem: str = "") -> dict[str, Any]:
    """The answer, once it has the status and names the problem."""

    async def asked() -> dict[str, Any] | None:
        found, body = await asyncio.to_thread(probe, port, path)
        return body if found == status and (not problem or problem in body["problems"]) else None

    return dict(await until(asked))


def healthcheck(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "amqpflow", "healthcheck", "--port", str(port), "--timeout", "30s", *arguments],
        env=environment(None),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_service_is_alive_before_it_is_ready_and_says_why_it_is_not(vhost: BrokerAddress, service: Path) -> None:
    port = free_port()

    async def steps(scene: Shop) -> None:
        scene.delete("queues", "orders")
        options = ("--health-port", str(port), "--health-host", "127.0.0.1", "--wait-for-topology", "60s")
        with running(service, vhost, "service:consumer", *options) as run:
            await answers(port, "/livez", 200)
            assert (await answers(port, "/readyz", 503))["problems"] == {"consumer": "it is starting"}
            assert healthcheck(port).returncode == 1
            assert healthcheck(port, "--live").returncode == 0
            await scene.declare()
            await answers(port, "/readyz", 200)
            assert healthcheck(port).stdout == "ready\n"
            scene.delete("queues", "orders")
            await answers(port, "/readyz", 503, problem="orders")
            assert "orders: " in healthcheck(port).stdout
            assert probe(port, "/livez")[0] == 200
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends() == 0
        nobody = healthcheck(port)
        assert (nobody.returncode, "no answer" in nobody.stderr) == (1, True)

    scenario(service, vhost, steps)


def test_a_worker_that_is_killed_is_started_again_and_no_message_is_lost(vhost: BrokerAddress, service: Path) -> None:
    (service / "pids.py").write_text(PIDS)
    port = free_port()

    async def steps(scene: Shop) -> None:
        options = ("--workers", "2", "--health-port", str(port), "--shutdown-timeout", "1s")
        with running(service, vhost, "pids:consumer", *options) as run:

            def seen() -> set[int]:
                return {int(line.split()[1]) for line in run.out if line.startswith("pid")}

            await answers(port, "/readyz", 200)
            await scene.publish("stuck")
            (victim,) = await until(seen)
            os.kill(victim, signal.SIGKILL)
            await until(lambda: len(seen()) == 2)  # the other one has it
            await until(lambda: any("SIGKILL" in line for line in run.err))
            await answers(port, "/readyz", 200)
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends() == 0
            # 2 if the first one could still say so
            assert any(re.search(r"2 workers: received [12]\b.*restarts: 1", line) for line in run.err), run.err
        assert (await scene.take_one("orders")).header.properties.message_id == "stuck"

    scenario(service, vhost, steps)


def test_workers_end_with_the_process_that_started_them(vhost: BrokerAddress, service: Path) -> None:
    (service / "pids.py").write_text(PIDS)

    async def steps(scene: Shop) -> None:
        with running(service, vhost, "pids:consumer", "--workers", "2") as run:
            await scene.publish("a")
            (worker,) = await until(lambda: [int(line.split()[1]) for line in run.out])
            run.process.kill()
            await until(lambda: not _runs(worker))

    def _runs(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    scenario(service, vhost, steps)


def test_a_mistake_is_said_once_and_ends_all_workers(service: Path) -> None:
    done = finished(service, None, "service:consume", "--workers", "3")
    assert done.returncode == 64
    assert done.stderr.count("has no 'consume'") == 1


def test_a_port_is_asked_for() -> None:
    done = run("healthcheck", env=environment(None))
    assert done.code == 64
    assert "--port" in done.err
