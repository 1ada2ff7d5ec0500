"""`amqpflow apply` as users run it: output, exit codes, and one clear line for everything that can go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management, as_user
from tests.commands import AMQPFLOW, Result, environment, run, start
from tests.faults.proxy import Proxy

TLS = Path(__file__).parents[1] / "tls"
COMMAND = (*AMQPFLOW, "apply")

SHOP = """\
version: 1
name: shop
vhost: ${AMQPFLOW_VHOST:?the virtual host of the test}
retry_policies:
  standard: {delays: [5s, 1m30s]}
exchanges:
  events: {type: topic}
queues:
  orders:
    retry: standard
    bindings: [{exchange: events, routing_key: "order.*"}]
    limits: {max_length: 1000, max_length_bytes: 1GiB}
  audit:
    retry: none
"""
WITHOUT_POLICIES = SHOP.replace("    limits: {max_length: 1000, max_length_bytes: 1GiB}\n", "")


def apply(
    file: Path,
    address: BrokerAddress,
    *options: str,
    by: Callable[..., Result] = run,
    **variables: str,
) -> Result:
    """Run the command in this process, or `by` a process of its own; a password in its output fails the test."""
    connection = ["--url", address.url]
    if address.management_url:
        connection += ["--management-url", address.management_url]
    result = by("apply", file, *connection, *options, env=environment(address, **variables))
    for text in (result.out, result.err):
        assert address.password == address.user or address.password not in text
    return result


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    file = tmp_path / "topology.yaml"
    file.write_text(SHOP)
    return file


@contextmanager
def user(address: BrokerAddress, *, tags: str = "", **permissions: str) -> Iterator[BrokerAddress]:
    management = Management(address)
    name = f"{address.vhost}-user"
    granted = {"configure": ".*", "write": ".*", "read": ".*", **permissions}
    management.put("users", name, body={"password": "s3cret", "tags": tags})
    if permissions != {"none": ""}:
        management.put("permissions", address.vhost, name, body=granted)
    try:
        yield replace(
            address, url=f"amqp://{name}:s3cret@{address.host}:{address.port}/{quote(address.vhost, safe='')}"
        )
    finally:
        management.delete("users", name)


def names(address: BrokerAddress, kind: str) -> set[str]:
    found = Management(address).get(kind, address.vhost)
    return {each["name"] for each in found if each["name"] and not each["name"].startswith("amq.")}


def test_a_plan_is_shown_applied_and_summed_up(vhost: BrokerAddress, shop: Path) -> None:
    result = apply(shop, vhost)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Topology shop on RabbitMQ {Management(vhost).get('overview')['rabbitmq_version']}")
    for line in (
        "  orders: retried after 5s 1m30s, then parked in orders.parking",
        "+ queue orders.retry.1m30s",
        "quorum, ttl 1m30s, then back to orders",
        "+ binding events -> orders (order.*)",
        "max-length 1000, max-length-bytes 1GiB; on orders",
    ):
        assert line in result.out
    assert result.out.endswith(
        "\n\nApplied: 3 exchanges, 6 queues, 7 bindings, 1 policy, 1 manifest created; 0 unchanged.\n"
    )
    assert "\x1b" not in result.out
    assert names(vhost, "queues") == {
        "orders",
        "orders.retry.5s",
        "orders.retry.1m30s",
        "orders.parking",
        "audit",
        "audit.parking",
    }


def test_the_second_time_there_is_nothing_to_do(vhost: BrokerAddress, shop: Path) -> None:
    apply(shop, vhost)
    result = apply(shop, vhost)
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("\n\nNothing to do: 17 objects are as the file says.\n")


def test_amqp_alone_is_enough_and_is_said(vhost: BrokerAddress, shop: Path) -> None:
    """The user has no tag, so that whatever listens on the derived port says no."""
    shop.write_text(WITHOUT_POLICIES)
    with user(vhost) as address:
        result = apply(shop, replace(address, management_url=None))
        assert result.code == 0
        assert "Note: Without the management API (" in result.out
        assert result.out.endswith("Applied: 3 exchanges, 6 queues, 7 bindings created; 0 unchanged.\n")
        result = apply(shop, replace(address, management_url=None))
        assert result.out.endswith(
            "Nothing to do: 9 objects are as the file says. "
            "7 bindings, which cannot be read over AMQP, are bound again.\n"
        )
    assert apply(shop, vhost).out.endswith("Applied: 1 manifest created; 16 unchanged.\n")


def test_json_holds_the_plan_and_its_result(vhost: BrokerAddress, shop: Path) -> None:
    result = apply(shop, vhost, "-o", "json")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert found["topology"] == "shop"
    assert found["vhost"] == vhost.vhost
    assert found["result"]["complete"] is True
    assert found["result"]["done"] == [
        {key: each[key] for key in ("action", "kind", "name")} for each in found["changes"]
    ]


def test_a_refusal_exits_with_4_and_gives_every_reason(vhost: BrokerAddress, shop: Path) -> None:
    apply(shop, vhost)
    Management(vhost).put("policies", vhost.vhost, "ops", body={"pattern": "park", "definition": {"expires": 9000000}})
    shop.write_text(SHOP.replace("topic", "fanout").replace("name: shop", "name: shop2"))
    before = names(vhost, "exchanges")
    result = apply(shop, vhost)
    assert result.code == 4
    assert result.says("Error: topology shop2, virtual host", "refused, and nothing was done")
    reasons = [line for line in result.err.splitlines() if line.startswith("  - ")]
    assert len(reasons) == 1 + 6 + 1 + 1
    assert result.says(
        "  - exchange events: type is topic on the broker, the file says fanout (it is owned by the topology shop)",
        "  - queue orders: it is owned by the topology shop",
        "policy ops sets expires 9000000",
        "has the same priority",
    )
    assert names(vhost, "exchanges") == before
    found = json.loads(apply(shop, vhost, "-o", "json").out)
    assert len(found["refusals"]) == len(reasons)
    assert "result" not in found


def test_a_failure_in_the_middle_exits_with_3_and_tells_all(vhost: BrokerAddress, shop: Path) -> None:
    shop.write_text(WITHOUT_POLICIES)
    with user(vhost, tags="management", configure="^(?!orders\\.retry)") as address:
        result = apply(shop, address)
        assert result.code == 3
        assert result.says("Done:\n", "Failed:\n  ! queue orders.retry.5s: ACCESS_REFUSED", "Not begun:\n")
        assert result.says("Error: queue orders.retry.5s failed", "steps done", "apply again")
        found = json.loads(apply(shop, address, "-o", "json").out)["result"]
        assert found["failed"]["name"] == "orders.retry.5s"
        assert found["complete"] is False
    assert apply(shop, vhost).code == 0
    assert "Nothing to do" in apply(shop, vhost).out


def test_no_permission_at_all_is_one_line(vhost: BrokerAddress, shop: Path) -> None:
    shop.write_text(WITHOUT_POLICIES)
    with user(vhost, tags="management", configure="^$") as address:
        result = apply(shop, address)
    assert result.code == 1
    assert "Error: ACCESS_REFUSED" in result.err
    assert names(vhost, "exchanges") == set()


def one_line(result: Result, *words: str) -> None:
    """Exit code 1, nothing on standard output, one line that says it, and at most a hint below."""
    first, *hint = result.err.splitlines()
    assert result.code == 1
    assert result.out == ""
    assert first.startswith("Error: ")
    for word in words:
        assert word in first
    assert len(hint) <= 1
    assert all(line.startswith("  ") for line in hint)


def test_a_wrong_password_is_one_line(vhost: BrokerAddress, shop: Path) -> None:
    wrong = as_user(vhost, vhost.user, "wr0ng")
    one_line(apply(shop, wrong), "RabbitMQ refused the user or the password")


def test_a_missing_virtual_host_is_one_line(vhost: BrokerAddress, shop: Path) -> None:
    one_line(apply(shop, vhost.with_vhost("no/such vhost")), "there is no virtual host no/such vhost")


def test_a_virtual_host_without_access_is_one_line(vhost: BrokerAddress, shop: Path) -> None:
    with user(vhost, tags="management", none="") as address:
        one_line(apply(shop, address), "has no access to the virtual host")


@pytest.mark.one_broker
@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid:5672"])
def test_an_unreachable_host_is_one_line(vhost: BrokerAddress, shop: Path, host: str) -> None:
    one_line(apply(shop, BrokerAddress(url=f"amqp://app:s3cret@{host}/", source="test")), f"{host}", "cannot connect")


def test_tls_to_a_plain_port_is_one_line(vhost: BrokerAddress, shop: Path) -> None:
    tls = replace(vhost, url=vhost.url.replace("amqp://", "amqps://"), management_url=None)
    one_line(apply(shop, tls), "TLS failed")


@pytest.mark.parametrize("options", [[], ["--ca-file", "no-such-file.pem"]])
def test_an_untrusted_certificate_is_one_line(shop: Path, options: list[str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")

    async def meet() -> Result:
        async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            address = BrokerAddress(url=f"amqps://app:s3cret@127.0.0.1:{port}/", source="test")
            return await asyncio.to_thread(apply, shop, address.with_vhost("v"), *options, by=start)

    asyncio.run(meet())
    one_line(asyncio.run(meet()), "cannot load the TLS files" if options else "certificate verify failed")


@pytest.mark.one_broker
def test_a_management_url_that_is_none_is_one_line(vhost: BrokerAddress, shop: Path) -> None:
    amqp_port = replace(vhost, management_url=f"http://{vhost.host}:{vhost.port}")
    one_line(apply(shop, amqp_port), f":{vhost.port} speaks AMQP")
    wrong = vhost.management_candidates()[0].replace("//", "//guest:wr0ng@")
    one_line(apply(shop, replace(vhost, management_url=wrong)), "refuses the user or the password")


def test_a_file_with_errors_is_reported_with_its_places(vhost: BrokerAddress, shop: Path) -> None:
    shop.write_text(SHOP.replace("exchange: events", "exchanges: events"))
    result = apply(shop, vhost)
    assert result.code == 1
    assert f"{shop}:11:17: T101: " in result.err
    assert names(vhost, "queues") == set()


def test_the_virtual_host_of_the_file_wins_and_is_said(vhost: BrokerAddress, shop: Path) -> None:
    elsewhere = vhost.with_vhost("elsewhere")
    result = apply(shop, elsewhere, AMQPFLOW_VHOST=vhost.vhost)
    assert result.code == 0
    assert result.err == f"Using virtual host {vhost.vhost} of {shop}; the URL names elsewhere.\n"
    assert "orders" in names(vhost, "queues")


def test_without_one_in_the_file_the_virtual_host_of_the_url_is_used(vhost: BrokerAddress, shop: Path) -> None:
    shop.write_text(SHOP.replace("vhost: ${AMQPFLOW_VHOST:?the virtual host of the test}\n", ""))
    assert apply(shop, vhost).code == 0
    assert "orders" in names(vhost, "queues")


@pytest.mark.one_broker
def test_colours_can_be_asked_for(vhost: BrokerAddress, shop: Path) -> None:
    assert "\x1b[32m+\x1b[0m exchange events" in apply(shop, vhost, "--color", "always").out


@pytest.mark.one_broker
def test_on_a_terminal_there_is_progress_and_colour(vhost: BrokerAddress, shop: Path) -> None:
    out, err = on_terminals(shop, vhost, TERM="xterm")
    assert "\x1b[32m+\x1b[0m exchange events" in out
    assert "/19" in err
    out, err = on_terminals(shop, vhost, TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in out


def on_terminals(file: Path, address: BrokerAddress, **variables: str) -> tuple[str, str]:
    """Standard output and standard error, each being a terminal."""
    (out_read, out_write), (err_read, err_write) = pty.openpty(), pty.openpty()
    texts = {out_read: b"", err_read: b""}
    connection = ["--url", address.url, "--management-url", address.management_url or ""]
    with subprocess.Popen(
        [*COMMAND, str(file), *connection], env=environment(address, **variables), stdout=out_write, stderr=err_write
    ) as process:
        os.close(out_write)
        os.close(err_write)
        open_ends = set(texts)
        while open_ends:
            for descriptor in select.select(open_ends, (), ())[0]:
                try:
                    part = os.read(descriptor, 65536)
                except OSError:  # how Linux says that the other side is closed
                    part = b""
                texts[descriptor] += part
                if not part:
                    os.close(descriptor)
                    open_ends.remove(descriptor)
        assert process.wait(60) == 0
    return texts[out_read].decode(), texts[err_read].decode()


@pytest.mark.one_broker
def test_ctrl_c_tells_how_far_it_got_and_applying_again_finishes(vhost: BrokerAddress, tmp_path: Path) -> None:
    queues = "".join(f"  q{number}: {{retry: none, type: classic}}\n" for number in range(100))
    file = tmp_path / "many.yaml"
    file.write_text(f"version: 1\nname: many\nqueues:\n{queues}")

    async def interrupt() -> tuple[int, str]:
        async with Proxy(vhost, heartbeat=None) as proxy:  # what is held back is not to look like a dead network
            proxy.hold_after(10_000)  # some way into 200 queues
            command = [*COMMAND, str(file), "--url", proxy.address.url, "--management-url", vhost.management_url or ""]
            process = subprocess.Popen(
                command,
                env=environment(vhost),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                async with asyncio.timeout(60):
                    await proxy.held.wait()
                process.send_signal(signal.SIGINT)
                proxy.restore()
                _, err = await asyncio.to_thread(process.communicate, timeout=120)
            except TimeoutError:
                process.kill()
                _, err = await asyncio.to_thread(process.communicate)
                pytest.fail(f"it did not get so far: {err}")
            return process.returncode, err

    code, err = asyncio.run(interrupt())
    assert code == 130, err
    assert "\nDone:\n  + exchange many.retry\n" in err
    assert "\nUnder way when it was stopped, may be done or not:\n" in err
    assert "\nNot begun:\n" in err
    assert err.endswith("\nInterrupted.\n")
    assert "Traceback" not in err
    assert apply(file, vhost).code == 0
    assert "Nothing to do: 402 objects" in apply(file, vhost).out


def test_wrong_usage_is_64(shop: Path) -> None:
    assert run("apply").code == 64
    assert run("apply", shop, "--url", "http://x").code == 64
    assert run("apply", shop, "-o", "yaml").code == 64
