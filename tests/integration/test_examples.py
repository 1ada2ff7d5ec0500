"""The example as its README has it: apply, run, publish, look at what is parked, mend, replay."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from amqpflow.rabbitmq.address import BrokerAddress

ORDERS = Path(__file__).parents[2] / "examples" / "orders"
AMQPFLOW = [sys.executable, "-m", "amqpflow"]


class Service:
    """A process whose lines are read until what is expected was among them."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*AMQPFLOW, "run", "service:consumer"],
            cwd=ORDERS,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self._rest = b""

    def until(self, *patterns: str, seconds: float = 60) -> None:
        """Read on until each pattern was found in some line."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while missing := [each for each in patterns if not any(re.search(each, line) for line in self.lines)]:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
                assert data, f"not seen: {missing}; seen:\n" + "\n".join(self.lines)
                *lines, self._rest = (self._rest + data).split(b"\n")
                self.lines += [line.decode() for line in lines]

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        with self.process.stdout:
            rest = self.process.stdout.read()
        code = self.process.wait(timeout=120)
        assert code == 0, "\n".join(self.lines) + rest.decode()


@pytest.fixture
def environ(vhost: BrokerAddress) -> dict[str, str]:
    """As `amqpflow dev` has one export it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AMQPFLOW", "RABBITMQ"))}
    kept["AMQPFLOW_URL"] = vhost.url
    kept["PYTHONUNBUFFERED"] = "1"
    if vhost.management_url:
        kept["AMQPFLOW_MANAGEMENT_URL"] = vhost.management_url
    return kept


def run(environ: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, cwd=ORDERS, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def parked(environ: dict[str, str]) -> dict[str, Any]:
    listing = json.loads(run(environ, *AMQPFLOW, "parked", "list", "topology.yaml", "-o", "json"))
    return {each["message_id"]: each for each in listing["messages"]}


def test_the_orders_example_works_as_its_readme_says(environ: dict[str, str]) -> None:
    assert "Applied:" in run(environ, *AMQPFLOW, "apply", "topology.yaml")

    with Service(environ) as service:
        assert run(environ, sys.executable, "publisher.py").count(": published") == 7
        service.until(
            *(f"charged order-{number} at attempt 1" for number in (1, 2, 3)),
            "charged order-4 at attempt 2",
            *(f"parked order-{number}" for number in (5, 6, 7)),
            *(f"noted order-{number} " for number in range(1, 8)),
        )

    waiting = parked(environ)
    assert {name: each["reason"] for name, each in waiting.items()} == {
        "order-5": "permanent",
        "order-6": "parked",
        "order-7": "undecodable",
    }
    assert waiting["order-5"]["detail"] == "invalid order"
    assert waiting["order-5"]["error_message"] == "total is -3"
    assert waiting["order-6"]["detail"] == "no account for CHF"

    with Service({**environ, "CURRENCIES": "EUR USD CHF"}) as service:
        run(environ, *AMQPFLOW, "replay", "topology.yaml", "--queue", "orders.payment", "--yes")
        service.until("charged order-6 at attempt 1", "parked order-5", "parked order-7")

    assert set(parked(environ)) == {"order-5", "order-7"}
    # a retry in one queue is never seen by the other queue that is bound to the exchange
    assert not any("noted" in line for line in service.lines)


def test_the_readme_has_the_commands_that_the_test_runs() -> None:
    text = (ORDERS / "README.md").read_text()
    for command in (
        "amqpflow apply topology.yaml",
        "amqpflow run service:consumer",
        "python publisher.py",
        "amqpflow parked list topology.yaml",
        "amqpflow replay topology.yaml --queue orders.payment --yes",
    ):
        assert command in text
