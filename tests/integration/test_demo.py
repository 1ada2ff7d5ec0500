"""The demo ends with the picture, or loudly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]


def run_demo(vhost: BrokerAddress, home: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AMQPFLOW", "XDG"))}
    environ |= {"AMQPFLOW_URL": "amqp://not.used.invalid/", "COLUMNS": "80", "HOME": str(home)}
    command = [sys.executable, "examples/demo.py", vhost.url, *filter(None, [vhost.management_url])]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture(scope="module")
def demo() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        yield load_script("examples/demo.py")
    finally:
        sys.path.remove(str(ROOT / "examples"))


@pytest.mark.one_broker
def test_the_demo_shows_everything_and_leaves_nothing(vhost: BrokerAddress, tmp_path: Path) -> None:
    run = run_demo(vhost, tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    for shown in ("Applied:", "order-09  failed", "exhausted", "KeyError", "$ amqpflow replay", "12  published"):
        assert shown in run.stdout, f"{shown!r} is not in\n{run.stdout}"
    assert "\x1b" not in run.stdout, "colours or cursor movements without a terminal"
    own = [line for line in run.stdout.splitlines() if line.startswith(("order-", "message"))]
    assert max(map(len, own)) <= 80
    assert Management(vhost).get("queues", vhost.vhost) == []
    assert list(tmp_path.iterdir()) == [], "left in the user's home"


@pytest.mark.one_broker
def test_the_demo_does_not_touch_a_queue_that_is_there_already(vhost: BrokerAddress, tmp_path: Path) -> None:
    Management(vhost).put("queues", vhost.vhost, "demo.payment", body={"durable": True})
    run = run_demo(vhost, tmp_path)
    assert run.returncode == 1
    assert "which the demo wants for itself" in " ".join(run.stdout.split())
    assert [queue["name"] for queue in Management(vhost).get("queues", vhost.vhost)] == ["demo.payment"]


def as_it_must_be(demo: ModuleType) -> tuple[object, dict[str, str], object, dict[str, int]]:
    first, second = demo.Timeline(demo.ORDERS), demo.Timeline(demo.PARKED)
    attempt = sys.modules["demo_timeline"].Attempt
    for name, (_, failures) in demo.ORDERS.items():
        if name in demo.PARKED:
            second.attempts[name] = [attempt(began=20, ended=20, succeeded=True)]
            continue
        made, clock = [], 0.0
        for number in range(failures):
            made.append(attempt(began=clock, ended=clock))
            clock += 2**number + 0.01
        first.attempts[name] = [*made, attempt(began=clock, ended=clock, succeeded=True)]
    return first, dict(demo.PARKED), second, {"demo.payment": 0}


def test_the_demo_finds_nothing_wrong_when_all_is_right(demo: ModuleType) -> None:
    assert demo.problems(*as_it_must_be(demo)) == []


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda first, parked, second, left: first.attempts["order-01"].clear(), "order-01 was handled 0 times"),
        (lambda first, parked, second, left: second.attempts["order-10"].clear(), "order-10 was handled 0 times"),
        (
            lambda first, parked, second, left: first.attempts["order-02"].extend(first.attempts["order-02"]),
            "order-02 was handled 2 times",
        ),
        (lambda first, parked, second, left: parked.pop("order-11"), "parked were"),
        (lambda first, parked, second, left: left.update({"demo.payment.retry.1s": 1}), "1 messages are left in"),
        (
            lambda first, parked, second, left: setattr(first.attempts["order-07"][1], "began", 0.9),
            "order-07 came back after 0.900 s",
        ),
    ],
    ids=["lost", "lost in the replay", "handled twice", "not parked", "left over", "too early"],
)
def test_the_demo_complains_of_a_single_message_that_is_not_where_it_must_be(
    demo: ModuleType, spoil: object, complaint: str
) -> None:
    state = as_it_must_be(demo)
    spoil(*state)  # type: ignore[operator]
    assert any(each.startswith(complaint) for each in demo.problems(*state))
