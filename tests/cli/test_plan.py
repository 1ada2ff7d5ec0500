"""`amqpflow plan` as users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.cli.test_apply import SHOP, Result, apply, environment, names


def amqpflow(*arguments: str | Path, address: BrokerAddress, management: bool = True, **variables: str) -> Result:
    """Run a command with the connection options of `address`."""
    connection = ["--url", address.url]
    if management and address.management_url:
        connection += ["--management-url", address.management_url]
    done = subprocess.run(
        [sys.executable, "-m", "amqpflow", *map(str, arguments), *connection],
        env=environment(address, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def schema(kind: str) -> Any:
    printed = subprocess.run(
        [sys.executable, "-m", "amqpflow", "schema", kind], capture_output=True, text=True, timeout=30, check=True
    )
    return json.loads(printed.stdout)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    file = tmp_path / "topology.yaml"
    file.write_text(SHOP)
    return file


def test_it_changes_nothing_and_apply_then_does_what_it_printed(vhost: BrokerAddress, shop: Path) -> None:
    result = amqpflow("plan", shop, address=vhost)
    assert result.code == 0, result.err
    assert "Plan: 17 to create (3 exchanges, 6 queues, 7 bindings, 1 policy); 0 unchanged.\n" in result.out
    assert names(vhost, "queues") == set()
    assert amqpflow("plan", shop, "--detailed-exitcode", address=vhost).code == 2
    planned = json.loads(amqpflow("plan", shop, "-o", "json", address=vhost).out)
    Draft202012Validator(schema("plan")).validate(planned)
    done = json.loads(apply(shop, vhost, "-o", "json").out)
    Draft202012Validator(schema("plan")).validate(done)
    assert done["changes"] == planned["changes"]
    assert [each["name"] for each in done["result"]["done"]] == [each["name"] for each in planned["changes"]]
    again = amqpflow("plan", shop, "--detailed-exitcode", address=vhost)
    assert (again.code, again.out.splitlines()[-1]) == (0, "Nothing to do: 17 objects are as the file says.")


def test_what_would_be_refused_is_4_and_told_in_every_format(vhost: BrokerAddress, shop: Path) -> None:
    body = {"durable": True, "arguments": {"x-queue-type": "classic", "x-amqpflow-topology": "shop"}}
    Management(vhost).put("queues", vhost.vhost, "orders", body=body)
    result = amqpflow("plan", shop, "--detailed-exitcode", address=vhost)
    assert result.code == 4
    assert "-/+ queue orders" in result.out
    assert "x-queue-type: classic -> quorum" in result.out
    assert "It holds no ready message now" in " ".join(result.out.split())
    found = json.loads(amqpflow("plan", shop, "-o", "json", address=vhost).out)
    Draft202012Validator(schema("plan")).validate(found)
    assert found["summary"]["replace"] == 1
    markdown = amqpflow("plan", shop, "-o", "markdown", address=vhost)
    assert markdown.code == 4
    assert "**x-queue-type:** classic -&#62; quorum" in markdown.out


@pytest.mark.one_broker
def test_a_virtual_host_that_is_missing_and_wrong_usage_are_one_line(vhost: BrokerAddress, shop: Path) -> None:
    missing = amqpflow("plan", shop, address=vhost, AMQPFLOW_VHOST="nowhere")
    assert (missing.code, missing.out) == (1, "")
    assert missing.err.count("Error: ") == 1
    assert amqpflow("plan", shop, "-o", "yaml", address=vhost).code == 64


@pytest.mark.one_broker
def test_the_width_of_the_terminal_is_kept(vhost: BrokerAddress, shop: Path) -> None:
    for columns in ("80", "200"):
        lines = amqpflow("plan", shop, address=vhost, COLUMNS=columns).out.splitlines()[:-1]
        assert max(map(len, lines)) <= int(columns)
