"""Every JSON document says its version in the same way, so that a program can tell when it changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.cli.parked_shop import environment, fill, write_shop

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
        done = subprocess.run(
            [sys.executable, "-m", "amqpflow", *words, "-o", "json", *(() if words[0] in BROKERLESS else where)],
            env=environment(vhost),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout, f"{document}: {done.stderr}"
        assert json.loads(done.stdout)["version"] == 1, document
