"""`amqpflow graph` as users run it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from amqpflow import Topology, apply
from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.cli.test_imports import modules_after

EXAMPLE = Path(__file__).parents[2] / "examples" / "orders" / "topology.yaml"


def graph(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "amqpflow", "graph", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "AMQPFLOW_URL": "amqp://nobody:nothing@127.0.0.1:9/"},
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("form", ["text", "mermaid", "dot", "svg"])
def test_each_format_is_drawn_without_a_broker(form: str) -> None:
    out = graph(str(EXAMPLE), "--format", form).stdout
    assert "orders.payment" in out
    assert "30s" in out


def test_it_loads_no_amqp_no_http_and_no_rich(tmp_path: Path) -> None:
    loaded = modules_after(tmp_path / "modules", "graph", str(EXAMPLE), "--format", "svg")
    assert not loaded & {"aio_pika", "aiormq", "pamqp", "rich", "httpx2"}


def test_out_is_written_whole_and_as_open_as_other_files(tmp_path: Path) -> None:
    out = tmp_path / "picture.svg"
    out.write_text("old")
    assert graph(str(EXAMPLE), "--format", "svg", "--out", str(out)).stdout == ""
    ElementTree.fromstring(out.read_text())
    (tmp_path / "other").touch()
    assert out.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other", "picture.svg"]


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    done = graph(str(EXAMPLE), "--out", str(tmp_path / "no" / "where.svg"), code=1)
    assert "cannot write" in done.stderr


@pytest.mark.one_broker
def test_live_draws_how_many_messages_are_where(vhost: BrokerAddress, tmp_path: Path) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text(EXAMPLE.read_text())
    management = Management(vhost)
    asyncio.run(apply(Topology.load(file), vhost, management_url=management.base))
    for _ in range(3):
        body = {"properties": {}, "routing_key": "orders.audit", "payload": "x", "payload_encoding": "string"}
        management.call("POST", "exchanges", vhost.vhost, "amq.default", "publish", body=body)
    out = graph(str(file), "--live", "--url", vhost.url, "--management-url", management.base).stdout
    assert "queue orders.audit [3]\n" in out
    assert "waits 1s [0], 5s [0], 30s [0] -->" in out
