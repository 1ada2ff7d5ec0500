"""`amqpflow run` as a service manager runs it: signals, exit codes, and what is logged."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from amqpflow.rabbitmq.address import BrokerAddress
from tests.cli.service_runs import SHOP, finished, running, scenario, service
from tests.shop import Shop
from tests.waiting import until

__all__ = ["service"]  # a fixture


@pytest.mark.one_broker
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_exit_code_is_0(vhost: BrokerAddress, service: Path, number: signal.Signals) -> None:
    async def steps(scene: Shop) -> None:
        with running(service, vhost, "service:consumer") as run:
            await scene.publish("m1", "m2", "m3")
            await run.says("started m1")
            run.process.send_signal(number)
            await until(lambda: any("second signal" in line for line in run.err))
            (service / "go").touch()
            assert await run.ends() == 0
            assert "finished m1\n" in run.out
            assert "started m2\n" not in run.out

        async def given_back() -> bool:
            return await scene.depth("orders") == 2

        await until(given_back)
        left = [each.header.properties.message_id for each in await scene.take("orders")]
        assert left == ["m2", "m3"]

    scenario(service, vhost, steps)


@pytest.mark.one_broker
def test_a_second_signal_stops_at_once(vhost: BrokerAddress, service: Path) -> None:
    async def steps(scene: Shop) -> None:
        for target in ("service:consumer", "service:other"):
            with running(service, vhost, target) as run:
                await scene.publish("m1")
                await run.says("started m1")
                run.process.send_signal(signal.SIGTERM)
                await until(lambda run=run: any("second signal" in line for line in run.err))  # type: ignore[misc]
                run.process.send_signal(signal.SIGTERM)
                assert await run.ends(within=30) == 130
                assert "finished m1\n" not in run.out
            await until(lambda: scene.depth("orders"))
            assert [each.header.properties.message_id for each in await scene.take("orders")] == ["m1"]

    scenario(service, vhost, steps)


@pytest.mark.one_broker
def test_handlers_that_do_not_finish_are_given_back_and_their_threads_hold_nothing_up(
    vhost: BrokerAddress, service: Path
) -> None:
    async def steps(scene: Shop) -> None:
        with running(service, vhost, "service:other", "--shutdown-timeout", "200ms") as run:
            await scene.publish("m1")
            await run.says("started m1")
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends(within=30) == 0
        assert (await scene.take_one("orders")).header.properties.message_id == "m1"

    scenario(service, vhost, steps)


@pytest.mark.one_broker
def test_json_logs_parse_and_hold_neither_body_nor_header(vhost: BrokerAddress, service: Path) -> None:
    async def steps(scene: Shop) -> None:
        arguments = ("service:consumer", "--log-format", "json", "--log-level", "debug")
        with running(service, vhost, *arguments) as run:
            await scene.publish("secret", body=b"card 4242", headers={"token": "hunter2"}, correlation_id="c-1")
            await run.says("started secret")
            await until(lambda: scene.depth("orders.parking"))
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends() == 0
        lines = [json.loads(line) for line in run.err]
        text = "".join(run.err)
        assert "4242" not in text
        assert "hunter2" not in text
        assert vhost.password == "guest" or vhost.password not in text
        (parked,) = [line for line in lines if line.get("outcome") == "parked"]
        assert parked["level"] == "warning"
        assert parked["queue"] == "orders"
        assert parked["message_id"] == "secret"
        assert parked["correlation_id"] == "c-1"
        assert parked["attempt"] == 1
        assert {"timestamp", "logger", "event"} <= parked.keys()

    scenario(service, vhost, steps)


@pytest.mark.one_broker
@pytest.mark.parametrize("tracebacks", [False, True])
def test_a_bug_in_a_handler_is_found_from_the_log_alone(vhost: BrokerAddress, service: Path, tracebacks: bool) -> None:
    line = next(n for n, text in enumerate((service / "service.py").read_text().splitlines(), 1) if "gateway" in text)
    what = f"NameError: name 'gateway' is not defined (service.py:{line})"

    async def steps(scene: Shop) -> None:
        with running(service, vhost, "service:buggy", *(["--tracebacks"] if tracebacks else [])) as run:
            await scene.publish("m1", body=b'{"total": 1}')
            await until(lambda: any("parked m1" in line for line in run.err))
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends() == 0
        text = "".join(run.err)
        assert f"WARNING retried m1: attempt 1 failed: {what}, again in 100ms [orders]" in text
        assert f"ERROR   parked m1: exhausted after attempt 2: {what} [orders]" in text
        assert text.count("Traceback") == (2 if tracebacks else 0)
        if tracebacks:
            assert text.count(f'service.py", line {line}, in total') == 2
            assert "calling.py" not in text, "no frame of amqpflow"

    scenario(service, vhost, steps)


@pytest.mark.one_broker
def test_a_bug_in_a_handler_is_found_from_a_json_log(vhost: BrokerAddress, service: Path) -> None:
    async def steps(scene: Shop) -> None:
        with running(service, vhost, "service:buggy", "--log-format", "json", "--tracebacks") as run:
            await scene.publish("m1", body=b'{"total": 1}')
            await until(lambda: any("exhausted" in line for line in run.err))
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends() == 0
        entries = [json.loads(line) for line in run.err]
        (parked,) = [entry for entry in entries if entry.get("event_name") == "message.parked"]
        assert (parked["level"], parked["error_type"]) == ("error", "NameError")
        assert parked["error_message"] == "name 'gateway' is not defined"
        assert parked["error_location"].startswith("service.py:")
        assert parked["exception"].startswith("Traceback (most recent call last):\n")

    scenario(service, vhost, steps)


@pytest.mark.one_broker
def test_a_message_cannot_write_to_the_terminal(vhost: BrokerAddress, service: Path) -> None:
    (service / "go").touch()

    async def steps(scene: Shop) -> None:
        with running(service, vhost, "service:consumer", "--log-level", "debug") as run:
            await scene.publish("\x1b[2J\u202eevil")
            await until(lambda: any("acked" in line for line in run.err))
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends() == 0
        assert "\x1b" not in "".join(run.err)
        assert "\u202e" not in "".join(run.err)

    scenario(service, vhost, steps)


@pytest.mark.one_broker
def test_without_its_topology_it_says_which_command_mends_it(vhost: BrokerAddress, service: Path) -> None:
    done = finished(service, vhost, "service:consumer")
    assert done.returncode == 4
    assert "queue orders is missing" in done.stderr
    assert "amqpflow apply shop.yaml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.one_broker
def test_a_signal_while_it_waits_for_its_topology_ends_it(vhost: BrokerAddress, service: Path) -> None:
    async def steps() -> None:
        with running(service, vhost, "service:consumer", "--wait-for-topology", "60s") as run:
            await until(lambda: any("waiting for the topology" in line for line in run.err))
            run.process.send_signal(signal.SIGTERM)
            await run.ends(within=30)

    asyncio.run(steps())


def test_a_broker_that_is_down_is_one_line(service: Path) -> None:
    done = finished(service, None, "service:consumer", AMQPFLOW_URL="amqp://app:hidden@127.0.0.1:1/v")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert "127.0.0.1:1" in line
    assert "hidden" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("service", ["'service' is not MODULE:CONSUMER", "service:consumer"]),
        ("service:", ["is not MODULE:CONSUMER"]),
        ("missing:consumer", ["there is no module 'missing'", "--app-dir"]),
        ("service:consume", ["module 'service' has no 'consume'", "consumer, other"]),
        ("service:not_a_consumer", ["is a int, not an amqpflow.Consumer"]),
        ("service:consumer.missing", ["has no 'consumer.missing'"]),
    ],
)
def test_a_target_that_is_none_is_wrong_usage(service: Path, target: str, words: Sequence[str]) -> None:
    done = finished(service, None, target)
    assert done.returncode == 64
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("target", ["broken:consumer", "needs:consumer"])
def test_a_bug_in_the_service_shows_its_traceback(service: Path, target: str) -> None:
    done = finished(service, None, target)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert ("ZeroDivisionError" in done.stderr) or ("no_such_module" in done.stderr)


@pytest.mark.parametrize("option", ["--wait-for-topology", "--shutdown-timeout"])
def test_a_duration_without_a_unit_is_wrong_usage(service: Path, option: str) -> None:
    done = finished(service, None, "service:consumer", option, "60")
    assert done.returncode == 64
    assert "60s" in done.stderr


def test_a_topology_file_with_errors_is_shown_without_a_traceback(service: Path) -> None:
    (service / "shop.yaml").write_text(SHOP.replace("quick: {delays", "quick: {delay"))
    done = finished(service, None, "service:consumer")
    assert done.returncode == 1
    assert "shop.yaml:5:" in done.stderr
    assert "delays" in done.stderr
    assert "Traceback" not in done.stderr


def test_app_dir_is_where_the_module_is(service: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "shop.yaml").write_text(SHOP)
    done = finished(elsewhere, None, "service:missing", "--app-dir", str(service))
    assert "consumer, other" in done.stderr
