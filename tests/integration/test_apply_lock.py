"""One apply of a topology at a time, whoever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amqpflow.api import functions as api
from amqpflow.errors import LockedError, LockLostError, PartlyDoneError, PermissionDeniedError
from amqpflow.model.names import applying_lock
from amqpflow.planning.values.changes import Change
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.provisioning.apply_lock import apply_lock
from tests.brokers.management import Management, as_user
from tests.topologies import topology
from tests.waiting import until

FILE = """\
version: 1
name: shop
queues:
  orders: {retry: none, delivery_limit: LIMIT}
"""


def test_the_holder_is_named_and_its_death_frees_the_lock(vhost: BrokerAddress, tmp_path: Path) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text(FILE.replace("LIMIT", "5"))
    command = [sys.executable, "-m", "amqpflow", "apply", str(file), "--url", vhost.url]
    command += ["--management-url", vhost.management_candidates()[-1]]

    async def hold() -> None:
        async with open_broker(vhost) as broker, apply_lock(broker, "shop") as lock:
            await lock.check(ask=True)
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120)
            assert done.returncode == 5, done.stderr
            assert (
                f"topology shop is locked: another amqpflow command holds it: pid {os.getpid()} of user" in done.stderr
            )
            waiting = await asyncio.create_subprocess_exec(
                *command, "--lock-timeout", "60s", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            assert waiting.stderr is not None
            assert b"Waiting: another amqpflow command holds it: pid" in await waiting.stderr.readline()
        out, _ = await waiting.communicate()
        assert waiting.returncode == 0
        assert b"Applied" in out

    asyncio.run(hold())


def test_a_killed_holder_leaves_no_lock(vhost: BrokerAddress) -> None:
    script = (
        "import asyncio, sys\n"
        "from amqpflow.rabbitmq.address import BrokerAddress\n"
        "from amqpflow.rabbitmq.observe import open_broker\n"
        "from amqpflow.services.provisioning.apply_lock import apply_lock\n"
        "async def main():\n"
        "    async with open_broker(BrokerAddress(url=sys.argv[1], source='test')) as broker:\n"
        "        async with apply_lock(broker, 'shop'):\n"
        "            print('held', flush=True)\n"
        "            await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, vhost.url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError):
            asyncio.run(api.apply(topology({"orders": []}, vhost=vhost.vhost), vhost))
        process.send_signal(signal.SIGKILL)
    assert asyncio.run(api.apply(topology({"orders": []}, vhost=vhost.vhost), vhost, lock_timeout=30)).complete


@pytest.mark.one_broker
def test_a_lock_that_is_cut_in_the_middle_stops_the_apply(vhost: BrokerAddress) -> None:
    """The connection is closed by the broker while a step is under way: the next step is not begun."""
    management = Management(vhost)
    compiled = topology({f"q{number}": [1000] for number in range(30)}, vhost=vhost.vhost)

    async def cut() -> None:
        def locks() -> list[str]:
            found = management.get("vhosts", vhost.vhost, "connections") or []
            names = {each["name"]: str(each.get("client_properties", {}).get("connection_name")) for each in found}
            return [name for name, told in names.items() if told.startswith("amqpflow lock shop")]

        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_step(number: int, _: Change, done: bool) -> None:
            if number == 3 and not done:
                # the loop stands still here, as an apply does in a slow step: only the next look can notice
                deadline = loop.time() + 30
                while not (found := locks()):
                    assert loop.time() < deadline
                for name in found:
                    management.delete("connections", name)
                begun.set()

        with pytest.raises(PartlyDoneError) as stopped:
            await api.apply(compiled, vhost, on_step=on_step)
        assert begun.is_set()
        assert isinstance(stopped.value.__cause__, LockLostError)
        assert stopped.value.exit_code == 3
        report = stopped.value.report
        assert report is not None
        assert len(report.remaining) > 100  # type: ignore[attr-defined]

    asyncio.run(cut())
    # the broker frees the lock some time after it has closed the connection
    assert asyncio.run(api.apply(compiled, vhost, lock_timeout=30)).complete


def test_of_two_applies_at_once_one_wins_whole(vhost: BrokerAddress) -> None:
    one = topology({"orders": [1000]}, vhost=vhost.vhost, delivery_limit=5)
    other = topology({"orders": [1000]}, vhost=vhost.vhost, delivery_limit=6)

    async def both() -> list[object]:
        return await asyncio.gather(api.apply(one, vhost), api.apply(other, vhost), return_exceptions=True)

    results = asyncio.run(both())
    assert len([each for each in results if isinstance(each, LockedError)]) <= 1
    limit = Management(vhost).get("queues", vhost.vhost, "orders")["arguments"]["x-delivery-limit"]
    winner = one if limit == 5 else other
    assert asyncio.run(api.plan(winner, vhost)).changes == ()


@pytest.mark.one_broker
def test_without_the_permission_it_says_which(vhost: BrokerAddress) -> None:
    management, name = Management(vhost), f"{vhost.vhost}-user"
    management.put("users", name, body={"password": "s3cret", "tags": "management"})
    try:
        granted = {"configure": r"^(orders|shop)\..*", "write": ".*", "read": ".*"}
        management.put("permissions", vhost.vhost, name, body=granted)
        with pytest.raises(PermissionDeniedError) as denied:
            asyncio.run(api.apply(topology({"orders": []}, vhost=vhost.vhost), as_user(vhost, name, "s3cret")))
        assert applying_lock("shop") in denied.value.hint
    finally:
        management.delete("users", name)


@pytest.mark.one_broker
def test_it_is_gone_afterwards(vhost: BrokerAddress) -> None:
    asyncio.run(api.apply(topology({"orders": []}, vhost=vhost.vhost), vhost))

    async def gone() -> None:
        await until(lambda: not Management(vhost).has_queue(vhost.vhost, applying_lock("shop")))

    asyncio.run(gone())
