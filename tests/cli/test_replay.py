"""`amqpflow replay` as users run it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from amqpflow import Topology
from amqpflow.model.headers import QUEUE, REASON
from amqpflow.model.properties import Properties
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from tests.brokers.selection import BrokerUnderTest
from tests.cli.parked_shop import amqpflow, arguments, fill, write_shop
from tests.commands import AMQPFLOW, Result, environment
from tests.parked import delivered, depth, drained, park, publish
from tests.topologies import declare

pytestmark = pytest.mark.one_broker


@pytest.fixture
def shop(tmp_path: Path, vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AMQPFLOW_VHOST", vhost.vhost)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return write_shop(tmp_path)


def replay(file: Path, address: BrokerAddress, *options: str) -> Result:
    return amqpflow("replay", file, address, *options)


def depth_of(address: BrokerAddress, queue: str) -> int:
    async def look() -> int:
        async with await connect(address, name="amqpflow test") as connection:
            return await depth(connection, queue)

    return asyncio.run(look())


def test_it_replays_and_says_what_it_did(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}") for n in range(12)])
    done = replay(shop, vhost, "--queue", "orders", "--yes", "--limit", "5")
    assert done.code == 0
    assert "Replayed 5 messages to orders" in done.out
    assert "5  parked: ValueError" in done.out
    assert "7 messages in orders.parking now." in done.out
    assert (depth_of(vhost, "orders"), depth_of(vhost, "orders.parking")) == (5, 7)


def test_json_is_one_ascii_document(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [delivered("orders", message_id="schön\x1b[2J")], error="E\u202e")
    done = replay(shop, vhost, "--queue", "orders", "--yes", "-o", "json")
    assert done.code == 0
    assert done.out.isascii()
    document = json.loads(done.out)
    assert (document["version"], document["replayed"]) == (1, 1)
    assert document["groups"] == [{"reason": "parked", "error": "E\u202e", "count": 1}]
    assert document["complete"] is True
    assert document["remaining"] == 0


def test_a_dry_run_counts_by_reason_and_error_and_does_nothing(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [delivered("mail", message_id=f"m{n}") for n in range(3)])
    fill(shop, vhost, [delivered("mail", message_id="k")], error="KeyError")
    fill(shop, vhost, [delivered("audit", message_id="a")])
    done = replay(shop, vhost, "--queue", "mail", "--dry-run")
    assert done.code == 0
    assert "4 messages from shared.parked to mail:" in done.out
    assert "3  parked: ValueError" in done.out
    assert "1  parked: KeyError" in done.out
    assert "1 message of other work queues" in done.out
    document = json.loads(replay(shop, vhost, "--queue", "mail", "--dry-run", "-o", "json").out)
    assert (document["selected"], document["others"], document["dry_run"]) == (4, 1, True)
    assert (depth_of(vhost, "shared.parked"), depth_of(vhost, "mail")) == (5, 0)


def test_messages_that_no_replay_takes_are_told(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [delivered("mail", message_id="m"), delivered("audit", message_id="a")])
    headers = {QUEUE: "orders", REASON: "parked"}
    gone = {QUEUE: "gone", REASON: "parked"}

    async def put() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            stray = [Properties(message_id="x", headers=headers), Properties(message_id="y", headers=gone)]
            await publish(connection, "shared.parked", *stray)

    asyncio.run(put())
    says = "2 messages in shared.parked of work queues that do not park there; no replay takes them."
    planned = replay(shop, vhost, "--queue", "mail", "--dry-run")
    assert says in planned.out
    document = json.loads(replay(shop, vhost, "--queue", "mail", "--dry-run", "-o", "json").out)
    assert (document["selected"], document["others"], document["misplaced"]) == (1, 3, 2)
    document = json.loads(replay(shop, vhost, "--queue", "mail", "--yes", "-o", "json").out)
    assert (document["replayed"], document["others"], document["misplaced"]) == (1, 3, 2)
    assert says in replay(shop, vhost, "--queue", "audit", "--yes").out
    listed = amqpflow("parked list", shop, vhost, "--queue", "shared.parked", "-o", "json")
    assert [each["message_id"] for each in json.loads(listed.out)["messages"]] == ["x", "y"]


def test_what_does_not_say_where_it_failed_stays_with_exit_code_3_until_its_origin_is_asserted(
    shop: Path, vhost: BrokerAddress
) -> None:
    fill(shop, vhost, [delivered("orders", message_id="o")])

    async def put() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            await publish(connection, "orders.parking", Properties(message_id="x"))

    asyncio.run(put())
    says = "1 message in orders.parking does not say where it failed, and stays parked. --origin QUEUE asserts"
    planned = replay(shop, vhost, "--queue", "orders", "--dry-run")
    assert (planned.code, says in planned.out) == (0, True)
    done = replay(shop, vhost, "--queue", "orders", "--yes")
    assert (done.code, says in done.out, "Replayed 1 message" in done.out) == (3, True, True)
    listed = amqpflow("parked list", shop, vhost, "--queue", "orders")
    assert "unknown" in listed.out
    assert json.loads(amqpflow("parked list", shop, vhost, "-o", "json").out)["messages"][0]["queue"] is None
    assert "work queue       unknown" in amqpflow("parked show", shop, vhost, "x").out
    document = json.loads(replay(shop, vhost, "--queue", "orders", "--yes", "-o", "json").out)
    assert (document["replayed"], document["unknown_origin"], document["complete"]) == (0, 1, False)
    assert replay(shop, vhost, "--yes", "--origin", "ordres").code == 64
    assert replay(shop, vhost, "--queue", "orders", "--yes", "--origin", "orders").code == 0
    assert (depth_of(vhost, "orders"), depth_of(vhost, "orders.parking")) == (2, 0)


def test_without_a_terminal_it_does_not_ask_and_does_nothing(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [delivered("orders")])
    done = replay(shop, vhost, "--queue", "orders")
    assert done.code == 4
    assert "standard input is not a terminal; nothing was done" in done.err
    assert "--yes" in done.err
    assert depth_of(vhost, "orders.parking") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--queue", "ordres", "--yes"], "did you mean orders?"),
        (["--queue", "orders.parking", "--yes"], "it holds messages of orders"),
        (["--yes", "--rate", "many"], "--rate: 'many' is not a rate: write it like 100/s"),
        (["--rate", "many"], "--rate: 'many' is not a rate: write it like 100/s"),  # before it asks, or cannot
        (["--stop-if-reparked", "200%"], "--stop-if-reparked must be"),
        (["--queue", "orders", "--limit", "0", "--yes"], "--limit"),
    ],
)
def test_wrong_usage_names_what_to_write(shop: Path, vhost: BrokerAddress, options: list[str], says: str) -> None:
    fill(shop, vhost, [])
    done = replay(shop, vhost, *options)
    assert done.code == 64
    assert says in done.err


def test_a_topology_that_was_not_applied_names_the_command(shop: Path, vhost: BrokerAddress) -> None:
    done = replay(shop, vhost, "--queue", "orders", "--yes")
    assert done.code == 4
    assert f"amqpflow apply {shop}" in done.err


def test_what_is_left_behind_is_reported_and_the_exit_code_is_3(
    shop: Path, vhost: BrokerAddress, broker: BrokerUnderTest
) -> None:
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}") for n in range(30)])
    broker.management.delete("bindings", vhost.vhost, "e", "shop.retry", "q", "orders", "orders")
    done = replay(shop, vhost, "--queue", "orders", "--yes")
    assert done.code == 3
    assert "Stopped: shop.retry cannot route to orders" in done.err
    assert f"amqpflow apply {shop}" in done.err
    assert "Replayed 0 messages" in done.out
    document = json.loads(replay(shop, vhost, "--queue", "orders", "--yes", "-o", "json").out)
    assert document["complete"] is False
    assert document["failed"] == len(document["left_behind"]) > 0
    assert document["remaining"] == 30


def test_the_history_tells_of_a_replay_that_was_stopped_and_resume_goes_on_with_what_it_was_asked_for(
    shop: Path, vhost: BrokerAddress, broker: BrokerUnderTest
) -> None:
    nothing = replay(shop, vhost, "--history")
    assert (nothing.code, nothing.out) == (0, "No replays.\n")
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}") for n in range(3)])
    fill(shop, vhost, [delivered("orders", message_id=f"k{n}") for n in range(2)], error="KeyError")
    broker.management.delete("bindings", vhost.vhost, "e", "shop.retry", "q", "orders", "orders")
    stopped = replay(shop, vhost, "--queue", "orders", "--error-type", "KeyError", "--keep-attempts", "--yes")
    assert stopped.code == 3
    (told,) = json.loads(replay(shop, vhost, "--history", "-o", "json").out)["replays"]
    assert (told["topology"], told["queue"], told["complete"]) == ("shop", "orders", False)
    assert (told["sent"], told["confirmed"], told["left"], told["in_doubt"]) == (1, 0, 1, [])
    listed = replay(shop, vhost, "--history")
    assert listed.code == 0
    assert told["id"] in listed.out
    assert "error_types=KeyError" in listed.out
    assert "not complete: sent 1, confirmed 0, left 1" in listed.out

    refused = replay(shop, vhost, "--resume", told["id"], "--rate", "5/s", "--yes")
    assert (refused.code, "has another request: rate: 5.0 now, none then" in refused.err) == (4, True)
    fill(shop, vhost, [])  # the way is there again
    resumed = replay(shop, vhost, "--resume", told["id"][:6], "--yes", "-o", "json")
    assert resumed.code == 0, resumed.err
    document = json.loads(resumed.out)
    assert (document["replay_id"], document["replayed"], document["remaining"]) == (told["id"], 2, 3)
    (told,) = json.loads(replay(shop, vhost, "--history", "-o", "json").out)["replays"]
    assert (told["complete"], told["confirmed"], len(told["resumed"])) == (True, 2, 1)
    assert (depth_of(vhost, "orders"), depth_of(vhost, "orders.parking")) == (2, 3)

    again = replay(shop, vhost, "--resume", told["id"], "--yes")
    assert again.code == 4
    assert "nothing to resume" in again.err
    unknown = replay(shop, vhost, "--resume", "nosuch", "--yes")
    assert (unknown.code, "no replay 'nosuch'" in unknown.err) == (64, True)


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, env)
        self.seen = ""

    def until(self, text: str) -> None:
        self._read(lambda: text in self.seen)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def exit_code(self, pressing: str = "") -> int:
        pressed = time.monotonic() - 2

        def press() -> bool:
            nonlocal pressed
            if pressing and time.monotonic() > pressed + 2:
                self.type(pressing)
                pressed = time.monotonic()
            return False

        self._read(press)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)

    def _read(self, enough: Any) -> None:
        deadline = time.monotonic() + 60
        while not enough():
            assert time.monotonic() < deadline, self.seen
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:
                    return
                if not data:
                    return
                self.seen += data.decode(errors="replace")


def on_terminal(shop: Path, address: BrokerAddress, *options: str) -> Terminal:
    command = [*AMQPFLOW, *arguments("replay", shop, address, *options)]
    return Terminal(command, {**environment(address), "TERM": "xterm"})


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_on_a_terminal_it_asks(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}") for n in range(3)])
    terminal = on_terminal(shop, vhost, "--queue", "orders")
    terminal.until("Replay them? [y/N]")
    assert "3 messages from orders.parking to orders" in terminal.seen
    terminal.type("n\n")
    assert terminal.exit_code() == 4
    assert "Nothing was done." in terminal.seen
    assert depth_of(vhost, "orders.parking") == 3
    terminal = on_terminal(shop, vhost, "--queue", "orders")
    terminal.until("Replay them? [y/N]")
    terminal.type("y\n")
    assert terminal.exit_code() == 0
    assert "Replayed 3 messages" in terminal.seen
    assert depth_of(vhost, "orders.parking") == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_ctrl_c_at_the_question_does_nothing(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}") for n in range(3)])
    terminal = on_terminal(shop, vhost, "--queue", "orders")
    terminal.until("Replay them? [y/N]")
    # a signal that comes just before Python waits for a line is seen after that line only: press until it is seen
    assert terminal.exit_code(pressing="\x03") == 130
    assert depth_of(vhost, "orders.parking") == 3


def test_ctrl_c_settles_what_is_in_flight_and_gives_back_the_rest(shop: Path, vhost: BrokerAddress) -> None:
    count = 20_000
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}") for n in range(count)])
    process = subprocess.Popen(
        [
            *AMQPFLOW,
            *arguments("replay", shop, vhost, "--queue", "orders", "--yes", "-o", "json"),
        ],
        env=environment(vhost),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while depth_of(vhost, "orders") == 0:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Stopping:" in err
    document = json.loads(out)
    assert document["interrupted"] is True
    assert 0 < document["replayed"] < count
    assert document["remaining"] == count - document["replayed"]

    async def look() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            sent = [each.properties.message_id for each in await drained(connection, "orders", document["replayed"])]
            left = await drained(connection, "orders.parking", count - document["replayed"])
            ids = [f"m{n}" for n in range(count)]
            assert sent == ids[: len(sent)]
            assert [each.properties.message_id for each in left] == ids[len(sent) :]

    asyncio.run(look())


def test_as_a_function(shop: Path, vhost: BrokerAddress) -> None:
    from amqpflow import parked, parked_message, plan_replay
    from amqpflow import replay as replay_function
    from amqpflow.services.replaying.request import ReplayRequest

    async def go() -> None:
        topology = Topology.load(shop)
        async with await connect(vhost, name="amqpflow test") as connection:
            await declare(connection, topology.compiled)
            await park(connection, topology.compiled, [delivered("orders", message_id=f"m{n}") for n in range(4)])
        url, management = vhost.url, vhost.management_candidates()[-1]
        listing = await parked(topology, url, management_url=management)
        assert [row.message_id for row in listing.messages] == ["m0", "m1", "m2", "m3"]
        (found,) = await parked_message(topology, "m2", url, management_url=management)
        assert found.id == listing.messages[2].id
        choice = ReplayRequest(limit=3)
        plan = await plan_replay(topology, url, queue="orders", choice=choice, management_url=management)
        choice = ReplayRequest(only=plan.only)
        report = await replay_function(topology, url, queue="orders", choice=choice, management_url=management)
        assert (plan.selected, report.replayed, report.remaining) == (3, 3, 1)

    asyncio.run(go())
