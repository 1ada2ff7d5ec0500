"""Every JSON document says its version in the same way, so that a program can tell when it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.cli.parked_shop import fill, write_shop
from tests.commands import environment, run

BROKERLESS = ("validate", "permissions")
DOCUMENTS = (
    "plan FILE", "apply FILE", "drift FILE", "status FILE", "explain FILE orders", "adopt FILE queue orders",
    "parked list FILE", "parked stats FILE", "replay FILE --dry-run", "replay FILE --yes", "replay --history",
    "validate FILE", "permissions FILE",
)  # fmt: skip


@pytest.mark.one_broker
def test_every_document_has_it(vhost: BrokerAddress, tmp_path: Path) -> None:
    file = write_shop(tmp_path)
    fill(file, vhost, [])
    where = ("--url", vhost.url, "--management-url", Management(vhost).base)
    for document in DOCUMENTS:
        words = document.replace("FILE", str(file)).split()
        options = () if words[0] in BROKERLESS else where
        done = run(*words, "-o", "json", *options, env=environment(vhost))
        assert done.out, f"{document}: {done.err}"
        assert json.loads(done.out)["version"] == 1, document
