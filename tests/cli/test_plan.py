"""`amqpflow plan` as users run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.cli.test_apply import SHOP, apply, names
from tests.commands import Result, environment, run


def amqpflow(*arguments: str | Path, address: BrokerAddress, management: bool = True, **variables: str) -> Result:
    """Run a command with the connection options of `address`."""
    connection = ["--url", address.url]
    if management and address.management_url:
        connection += ["--management-url", address.management_url]
    return run(*arguments, *connection, env=environment(address, **variables))


def schema(kind: str) -> Any:
    printed = run("schema", kind)
    assert printed.code == 0
    return json.loads(printed.out)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    file = tmp_path / "topology.yaml"
    file.write_text(SHOP)
    return file


def test_it_changes_nothing_and_apply_then_does_what_it_printed(vhost: BrokerAddress, shop: Path) -> None:
    result = amqpflow("plan", shop, address=vhost)
    assert result.code == 0, result.err
    assert "Plan: 18 to create (3 exchanges, 6 queues, 7 bindings, 1 policy, 1 manifest); 0 unchanged.\n" in result.out
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


def test_a_saved_plan_is_applied_as_it_is(vhost: BrokerAddress, shop: Path, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    result = amqpflow("plan", shop, "--out", saved, address=vhost)
    assert (result.code, result.err) == (0, f"Saved: amqpflow apply {saved}\n")
    assert saved.stat().st_mode & 0o777 == 0o600
    assert vhost.password not in saved.read_text().replace('"user": "guest"', "")
    shop.write_text("version: 1\nname: shop\nqueues: {another: {retry: none}}\n")  # the file does not matter any more
    done = apply(saved, vhost, AMQPFLOW_VHOST="nowhere")
    assert done.code == 0, done.err
    assert "Applied: 3 exchanges, 6 queues, 7 bindings, 1 policy, 1 manifest created; 0 unchanged.\n" in done.out
    assert "another" not in names(vhost, "queues")
    again = apply(saved, vhost)
    assert again.code == 4
    assert "is stale: the broker changed since it was made; nothing was done" in again.err
    assert "queue orders was not there, it is now" in again.err


@pytest.mark.one_broker
def test_a_saved_plan_that_the_broker_no_longer_fits_says_what_moved_and_does_nothing(
    vhost: BrokerAddress, shop: Path, tmp_path: Path
) -> None:
    apply(shop, vhost)
    shop.write_text(SHOP + "  more: {retry: none}\n")
    saved = tmp_path / "plan.json"
    assert amqpflow("plan", shop, "--out", saved, address=vhost).code == 0
    management = Management(vhost)
    (policy,) = management.get("policies", vhost.vhost)
    name = policy["name"]
    body = {**policy, "definition": {**policy["definition"], "max-length": 7}}
    management.put("policies", vhost.vhost, name, body=body)
    result = apply(saved, vhost)
    assert result.code == 4
    assert f"  - policy {name}: max-length 1000 -> 7\n" in result.err
    assert "more" not in names(vhost, "queues")
    management.delete("policies", vhost.vhost, name)
    assert f"  - policy {name} was there, it is gone\n" in apply(saved, vhost).err


@pytest.mark.one_broker
def test_a_saved_plan_that_was_cut_or_edited_is_refused_in_one_line(
    vhost: BrokerAddress, shop: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "plan.json"
    amqpflow("plan", shop, "--out", saved, address=vhost)
    text = saved.read_text()
    for broken, said in {
        text[:-100]: "it is incomplete: the file was truncated or edited",
        text.replace("orders", "ordrs", 1): "it was edited after it was saved: the checksum does not match",
        text.replace('"amqpflow_plan": 2', '"amqpflow_plan": 7'): "it has format 7",
    }.items():
        saved.write_text(broken)
        result = apply(saved, vhost)
        assert result.code == 4
        assert result.err.startswith(f"Error: the saved plan {saved} cannot be used: {said}")
    assert names(vhost, "queues") == set()


@pytest.mark.one_broker
def test_a_plan_that_apply_would_refuse_or_that_cannot_be_written_is_not_saved(
    vhost: BrokerAddress, shop: Path, tmp_path: Path
) -> None:
    nowhere = amqpflow("plan", shop, "--out", tmp_path / "no" / "plan.json", address=vhost)
    assert nowhere.code == 1
    assert "cannot save the plan" in nowhere.err
    Management(vhost).put("queues", vhost.vhost, "orders")
    result = amqpflow("plan", shop, "--out", tmp_path / "plan.json", address=vhost)
    assert (result.code, [each.name for each in tmp_path.glob("plan*")]) == (4, [])
    assert "Not saved" in result.err


@pytest.mark.one_broker
def test_a_saved_plan_that_removes_is_agreed_to_where_it_is_applied(
    vhost: BrokerAddress, shop: Path, tmp_path: Path
) -> None:
    shop.write_text(SHOP.replace("exchanges:\n", "exchanges:\n  leaving: {type: fanout}\n"))
    apply(shop, vhost)
    shop.write_text(SHOP)
    saved = tmp_path / "plan.json"
    assert amqpflow("plan", shop, "--detailed-exitcode", address=vhost).code == 0
    shown = amqpflow("plan", shop, "--prune", "--detailed-exitcode", "--out", saved, address=vhost)
    assert shown.code == 2
    assert "  Review before applying\n" in shown.out
    assert "Apply asks first, or needs --allow delete." in shown.out
    assert apply(saved, vhost).code == 4
    assert "leaving" in names(vhost, "exchanges")
    assert apply(saved, vhost, "--allow", "delete").code == 0
    assert "leaving" not in names(vhost, "exchanges")
    assert amqpflow("plan", shop, "--prune", "--detailed-exitcode", address=vhost).code == 0
