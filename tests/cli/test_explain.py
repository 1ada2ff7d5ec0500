"""`amqpflow explain`, as a user runs it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.commands import run

SHOP = """
version: 1
name: shop
retry_policies: {fast: {delays: [5s]}}
defaults: {retry: fast}
queues:
  orders: {limits: {max_length: 5}}
"""


class Explain:
    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_text(SHOP)

    def __call__(self, *arguments: str, command: str = "explain", address: BrokerAddress | None = None) -> int:
        where = (
            [] if address is None else ["--url", address.url, "--management-url", address.management_candidates()[-1]]
        )
        done = run(command, self.file, *arguments, *where, env=os.environ)
        self.out, self.err = done.out, done.err
        return done.code

    def row(self, key: str) -> list[str]:
        """The words of the line of a setting."""
        return next(line.split() for line in self.out.splitlines() if line.startswith(f"  {key} "))


@pytest.fixture
def explain(tmp_path: Path) -> Explain:
    return Explain(tmp_path / "shop.yaml")


def test_a_foreign_policy_and_what_it_takes_away(vhost: BrokerAddress, explain: Explain) -> None:
    assert explain(command="apply", address=vhost) == 0
    policy = {"pattern": "^orders$", "definition": {"overflow": "drop-head"}, "priority": 20, "apply-to": "queues"}
    Management(vhost).put("policies", vhost.vhost, "ops", body=policy)
    assert explain("orders", address=vhost) == 0
    assert explain.row("overflow") == ["overflow", "drop-head", "policy", "ops"]
    assert explain.row("dead-letter-strategy")[1] == "at-most-once"
    assert "not reject-publish of the argument x-overflow" in explain.out
    assert "! max-length: wanted 5, works no limit" in explain.out
    assert explain("orders", "-o", "json", address=vhost) == 0
    found = json.loads(explain.out)
    assert (found["version"], found["complete"], found["exists"]) == (1, True, True)
    settings = {each["key"]: each for each in found["settings"]}
    assert settings["overflow"]["source"] == {"origin": "policy", "name": "ops"}
    assert {each["key"] for each in found["unmet"]} == {"max-length", "overflow", "dead-letter-strategy"}


@pytest.mark.one_broker
def test_over_amqp_alone_it_says_what_cannot_be_seen(vhost: BrokerAddress, explain: Explain) -> None:
    assert explain(command="apply", address=vhost) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AMQPFLOW_MANAGEMENT_URL", raising=False)
        assert explain("orders.retry.5s", "--url", vhost.url) == 0
        assert explain.row("message-ttl") == ["message-ttl", "5s", "argument", "x-message-ttl"]
        for policy in Management(vhost).get("policies", vhost.vhost):
            Management(vhost).delete("policies", vhost.vhost, policy["name"])
        assert explain("orders", "--url", vhost.url) == 0
        assert explain.row("max-length") == ["max-length", "not", "known", "policies", "cannot", "be", "seen"]
        assert "perhaps 5 of our policy amqpflow.shop.quorum" in explain.out
        assert explain("orders", "-o", "json", "--url", vhost.url) == 0
        settings = {each["key"]: each for each in json.loads(explain.out)["settings"]}
        assert settings["max-length"]["source"]["origin"] == "not known"
        assert (settings["max-length"]["value"], settings["max-length"]["certain"]) == (None, False)


def test_offline_for_a_release(explain: Explain) -> None:
    assert explain("orders.parking", "--offline", "--release", "3.10") == 0
    assert explain.row("delivery-limit") == ["delivery-limit", "1000000", "argument", "x-delivery-limit"]
    assert explain.row("max-priority")[1:3] == ["no", "priorities"]
    assert "shop.yaml only, for RabbitMQ 3.10" in explain.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["orderz", "--offline"], "did you mean orders?"),
        (["orders", "--release", "4.3"], "--release needs --offline"),
        (["orders", "--offline", "--release", "new"], "'new' is not a release of RabbitMQ"),
    ],
)
def test_wrong_usage(explain: Explain, arguments: list[str], says: str) -> None:
    assert explain(*arguments) == 64
    assert says in explain.err
