"""The scripts of docs/how-to/ci.md, as they stand there, from the first plan to a drift in the night."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.cli.test_apply import SHOP
from tests.commands import environment

PAGE = Path(__file__).parents[2] / "docs/how-to/ci.md"
SCRIPTS = dict(re.findall(r"<!-- script: (\S+) -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.mark.one_broker
def test_the_scripts_tell_each_case_apart(vhost: BrokerAddress, tmp_path: Path) -> None:
    def run(script: str) -> tuple[int, str]:
        done = subprocess.run(
            ["sh", "-c", SCRIPTS[script]],
            cwd=tmp_path,
            env=environment(
                vhost,
                AMQPFLOW_URL=vhost.url,
                AMQPFLOW_MANAGEMENT_URL=vhost.management_candidates()[0],
                PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin",
            ),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout.splitlines()[-1]

    file = tmp_path / "topology.yaml"
    file.write_text(SHOP)
    management = Management(vhost)
    assert run("nightly.sh") == (1, "somebody changed the broker: see drift.json")
    assert run("plan.sh") == (0, "changes: see plan.md")
    assert "to create (3 exchanges, 6 queues, 7 bindings, 1 policy" in (tmp_path / "plan.md").read_text()
    assert run("deploy.sh") == (0, "applied")
    assert run("deploy.sh") == (1, "the broker is not what was reviewed: plan again")
    assert run("plan.sh") == (0, "nothing to do")
    assert run("nightly.sh") == (0, "as the file says")
    management.delete("queues", vhost.vhost, "orders.retry.5s")
    assert run("nightly.sh") == (1, "somebody changed the broker: see drift.json")
    management.delete("queues", vhost.vhost, "orders")
    management.put("queues", vhost.vhost, "orders", body={"durable": True})
    assert run("plan.sh") == (1, "apply would refuse: see plan.md")
