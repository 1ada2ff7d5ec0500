"""`apply --prune`, `destroy` and `adopt` as users run them: exit codes, questions, what is left for the next time."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.provisioning import drain
from tests.brokers.management import Management
from tests.cli.test_apply import names
from tests.cli.test_plan import schema
from tests.commands import Result, environment, run

LAG = 0.2
"""In place of the wait for statistics, which is tested by itself."""

QUICK = (
    "from amqpflow.services.provisioning import drain\n"
    f"drain.STATISTICS_LAG = {LAG}\n"
    "from amqpflow.cli.main import main\n"
    "main()\n"
)
"""The command with that wait, in a process of its own."""

FILE = """\
version: 1
name: shop
vhost: ${AMQPFLOW_VHOST:?the virtual host of the test}
retry_policies:
  standard: {delays: [DELAY]}
queues:
  orders: {retry: standard}
"""
pytestmark = pytest.mark.one_broker


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "topology.yaml"
    file.write_text(FILE.replace("DELAY", "1m"))
    return file


def connection(address: BrokerAddress) -> tuple[str, ...]:
    return ("--url", address.url, "--management-url", address.management_candidates()[-1])


def amqpflow(address: BrokerAddress, *arguments: str | Path) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drain, "STATISTICS_LAG", LAG)
        return run(*arguments, *connection(address), env=environment(address))


def answered(
    address: BrokerAddress, answer: str, *arguments: str | Path, meanwhile: Callable[[], None] | None = None
) -> Result:
    """The command with standard input and standard error on a terminal, where a person answers its question."""
    ours, theirs = pty.openpty()
    said, asked = bytearray(), threading.Event()

    def read() -> None:
        # all the time: a terminal holds some KiB, and a progress bar that nothing reads would block the command
        try:
            while part := os.read(ours, 65536):
                said.extend(part)
                if b"?" in said:
                    asked.set()
        except OSError:  # how Linux says that the other side is closed
            asked.set()

    command = [sys.executable, "-c", QUICK, *map(str, arguments), *connection(address)]
    with subprocess.Popen(
        command, env=environment(address), stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        reader = threading.Thread(target=read)
        reader.start()
        if meanwhile is not None:
            assert asked.wait(60)
            meanwhile()
        os.write(ours, answer.encode() + b"\n")
        out, _ = process.communicate(timeout=120)
    reader.join()
    os.close(ours)
    return Result(process.returncode, out.decode(), said.decode())


def publish(address: BrokerAddress, queue: str) -> None:
    body = {"properties": {"delivery_mode": 2}, "routing_key": queue, "payload": "x", "payload_encoding": "string"}
    answer = Management(address).call("POST", "exchanges", address.vhost, "amq.default", "publish", body=body)
    assert answer == {"routed": True}


def test_a_changed_delay_from_the_refusal_to_the_end(vhost: BrokerAddress, file: Path) -> None:
    assert amqpflow(vhost, "apply", file).code == 0
    publish(vhost, "orders.retry.1m")
    file.write_text(FILE.replace("DELAY", "1s"))
    before = names(vhost, "queues")

    refused = amqpflow(vhost, "apply", file, "--prune")
    assert refused.code == 4
    assert refused.says("nothing was done", "queue orders.retry.1m would be removed; --allow delete permits it")
    assert names(vhost, "queues") == before

    left = amqpflow(vhost, "apply", file, "--prune", "--allow", "delete", "-o", "json")
    assert left.code == 3
    document = json.loads(left.out)
    Draft202012Validator(schema("plan")).validate(document)
    assert document["purpose"] == "prune"
    assert document["required"] == ["delete"]
    assert [(each["action"], each["name"]) for each in document["result"]["postponed"]][:2] == [
        ("drain", "orders.retry.1m"),
        ("delete", "orders.retry.1m"),
    ]
    assert document["result"]["postponed"][0]["messages"] == 1

    again = amqpflow(vhost, "apply", file, "--prune", "--allow", "delete")
    assert again.code == 3
    assert again.says("Left for the next time:", "queue orders.retry.1m: 1 message still to return to orders")
    assert again.says("Run the same command again ", "or with --wait.")
    assert amqpflow(vhost, "apply", file, "--prune", "--allow", "delete:orders.retry.1m").code == 0
    assert names(vhost, "queues") == {"orders", "orders.parking", "orders.retry.1s"}
    assert "Nothing to do" in amqpflow(vhost, "plan", file, "--prune").out


def test_on_a_terminal_it_asks(vhost: BrokerAddress, file: Path) -> None:
    amqpflow(vhost, "apply", file)
    no = answered(vhost, "n", "destroy", file)
    assert no.code == 4
    assert no.says("Remove 3 queues, 2 exchanges?", "nothing was done")
    assert names(vhost, "queues") == {"orders", "orders.parking", "orders.retry.1m"}
    yes = answered(vhost, "y", "destroy", file)
    assert yes.code == 0
    assert names(vhost, "queues") == set()
    assert "why: topology shop is destroyed" in yes.out


def test_a_queue_with_messages_has_to_be_named(vhost: BrokerAddress, file: Path) -> None:
    amqpflow(vhost, "apply", file)
    publish(vhost, "orders.parking")
    publish(vhost, "orders")
    for result in (amqpflow(vhost, "destroy", file, "--allow", "delete"), answered(vhost, "y", "destroy", file)):
        assert result.code == 4
        assert result.says("Error: topology", "refused, and nothing was done")
        assert result.says("queue orders.parking: 1 message would be lost with it", "--allow delete:orders.parking")
        assert result.says("queue orders: 1 message would be lost with it")
    assert amqpflow(vhost, "destroy", file, "--allow", "delete,delete:orders,delete:orders.parking").code == 0
    assert names(vhost, "queues") == set()


def test_one_name_consents_to_one_removal(vhost: BrokerAddress, file: Path) -> None:
    """What is named goes even with messages, and nothing else does; the refusal says what is still needed."""
    amqpflow(vhost, "apply", file)
    publish(vhost, "orders")
    before = names(vhost, "queues"), names(vhost, "exchanges")
    refused = amqpflow(vhost, "destroy", file, "--allow", "delete:orders,delete:ordres.parking")
    assert refused.code == 4
    assert refused.says("queue orders.retry.1m, queue orders.parking, exchange shop.", "--allow delete permits it")
    assert refused.says("--allow names an object that this plan does not remove: queue ordres.parking")
    assert not refused.says("queue orders,")
    assert (names(vhost, "queues"), names(vhost, "exchanges")) == before
    asked = answered(vhost, "n", "destroy", file, "--allow", "delete:orders,delete:orders.parking")
    assert asked.says("Remove 1 queue, 2 exchanges?")
    file.write_text(FILE.replace("DELAY", "1s"))
    queue, exchange = "delete:orders.retry.1m", "delete:exchange shop.retry"
    assert amqpflow(vhost, "apply", file, "--prune", "--allow", exchange).says(
        "queue orders.retry.1m would be removed; --allow delete permits it"
    )
    assert amqpflow(vhost, "apply", file, "--prune", "--allow", queue).code == 0
    assert names(vhost, "queues") == {"orders", "orders.parking", "orders.retry.1s"}


@pytest.mark.parametrize("words", ["everything", "delete:", "replace:orders", "delete,,replace"])
def test_what_cannot_be_allowed_is_wrong_usage(vhost: BrokerAddress, file: Path, words: str) -> None:
    result = amqpflow(vhost, "apply", file, "--allow", words)
    assert result.code == 64
    assert result.says("--allow: ", "unknown value", "use replace, delete, or one object alone: delete:QUEUE")


def test_what_others_do_while_it_asks_makes_the_plan_stale(vhost: BrokerAddress, file: Path) -> None:
    """The application makes the binding that the plan was about to make: it would be recorded as the topology's own."""
    management = Management(vhost)
    management.put("queues", vhost.vhost, "orders", body={"durable": True})
    existing = FILE.replace("orders: {retry: standard}", "orders: {existing: true, type: classic, retry: standard}")
    file.write_text(existing.replace("DELAY", "1m"))
    assert amqpflow(vhost, "apply", file).code == 0
    bound = existing.replace("type: classic", "type: classic, bindings: [{exchange: amq.topic, routing_key: a.#}]")
    file.write_text(bound.replace("DELAY", "1s"))

    def bind() -> None:
        management.call("POST", "bindings", vhost.vhost, "e", "amq.topic", "q", "orders", body={"routing_key": "a.#"})

    stale = answered(vhost, "y", "apply", file, "--prune", meanwhile=bind)
    assert stale.code == 4
    assert stale.says("is stale", "nothing was done", "binding amq.topic -> orders (a.#) was not there, it is now")
    assert names(vhost, "queues") == {"orders", "orders.parking", "orders.retry.1m"}
    assert answered(vhost, "y", "apply", file, "--prune").code == 0
    listed = json.loads(amqpflow(vhost, "plan", file, "-o", "json").out)["bindings"]
    assert [each["origin"] for each in listed] == ["foreign"]


def test_adopt(vhost: BrokerAddress, file: Path) -> None:
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
    Management(vhost).put("queues", vhost.vhost, "orders.parking", body={"durable": True, "arguments": arguments})
    assert amqpflow(vhost, "apply", file).code == 4
    refused = amqpflow(vhost, "adopt", file, "queue", "orders.parking", "nothing")
    assert refused.code == 4
    assert refused.says("queue nothing: it does not exist")
    adopted = amqpflow(vhost, "adopt", file, "queue", "orders.parking")
    assert adopted.code == 0
    assert "adopts queue orders.parking" in adopted.out
    assert amqpflow(vhost, "apply", file).code == 0
    assert "Nothing to do" in amqpflow(vhost, "adopt", file, "queue", "orders.parking").out
    assert amqpflow(vhost, "adopt", file, "host", "x").code == 64
    disowned = amqpflow(vhost, "disown", file, "queue", "orders.parking")
    assert (disowned.code, "releases queue orders.parking" in disowned.out) == (0, True)
    assert "queue orders.parking: the file still declares it" in " ".join(disowned.out.split())
    assert "Nothing to do" in amqpflow(vhost, "disown", file, "queue", "orders.parking").out
    assert amqpflow(vhost, "disown", file, "queue", "orders").code == 4


def test_a_binding_that_was_there_before_is_shown_adopted_and_disowned(vhost: BrokerAddress, file: Path) -> None:
    management = Management(vhost)
    management.put("queues", vhost.vhost, "orders", body={"durable": True})
    management.call("POST", "bindings", vhost.vhost, "e", "amq.topic", "q", "orders", body={"routing_key": "a.#"})
    binding = "amq.topic -> orders (a.#)"
    file.write_text(
        FILE.replace("DELAY", "1m").replace(
            "orders: {retry: standard}",
            "orders: {existing: true, type: classic, bindings: [{exchange: amq.topic, routing_key: a.#}]}",
        )
    )
    plan = amqpflow(vhost, "plan", file)
    assert f"= binding {binding}  created by another program, stays" in " ".join(plan.out.split("   "))
    assert amqpflow(vhost, "apply", file).code == 0
    adopted = amqpflow(vhost, "adopt", file, "binding", binding, "-o", "json")
    assert adopted.code == 0
    Draft202012Validator(schema("plan")).validate(json.loads(adopted.out))
    listed = json.loads(amqpflow(vhost, "plan", file, "-o", "json").out)["bindings"]
    assert listed == [{"name": binding, "origin": "ours"}]
    disowned = amqpflow(vhost, "disown", file, "binding", binding)
    assert (disowned.code, "1 binding found there" in disowned.out) == (0, True)
    wrong = amqpflow(vhost, "disown", file, "binding", "amq.topic -> orders")
    assert wrong.code == 4
    assert wrong.says(f"it does not exist; there is {binding}")
