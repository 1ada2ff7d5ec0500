"""The manifests of the example: what they say fits the commands, and running what they say in their order works."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from amqpflow import Publisher, Topology
from amqpflow.cli.main import amqpflow
from amqpflow.model.units import parse_duration
from amqpflow.planning.reports.permissions import grants
from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.integration.test_permissions import granted
from tests.waiting import until

ORDERS = Path(__file__).parents[2] / "examples" / "orders"
K8S = ORDERS / "k8s"
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "kubernetes.md"
MOUNTED = "/run/amqpflow"


def manifests() -> dict[str, dict[str, Any]]:
    """By kind and name."""
    found = {}
    for path in sorted(K8S.glob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            found[f"{each['kind']}/{each['metadata']['name']}"] = each
    return found


ALL = manifests()
PODS = {name: each["spec"]["template"]["spec"] for name, each in ALL.items() if "template" in each.get("spec", {})}


def container(name: str) -> dict[str, Any]:
    (only,) = PODS[name]["containers"]
    return dict(only)


@pytest.mark.parametrize("name", sorted(PODS))
def test_commands_and_options_exist(name: str) -> None:
    command, *arguments = container(name)["args"]
    assert all(isinstance(each, str) for each in arguments), "Kubernetes takes strings"
    import click

    found = amqpflow.get_command(click.Context(amqpflow), command)
    assert found is not None
    context = found.make_context(command, list(arguments))
    for parameter in context.params:
        assert parameter in {each.name for each in found.params}


@pytest.mark.parametrize("name", sorted(PODS))
def test_secrets_come_as_files_that_are_mounted(name: str) -> None:
    pod, only = PODS[name], container(name)
    (volume,), (mount,) = pod["volumes"], only["volumeMounts"]
    assert (mount["name"], mount["mountPath"], mount["readOnly"]) == (volume["name"], MOUNTED, True)
    keys = ALL[f"Secret/{volume['secret']['secretName']}"]["stringData"]
    variables = {each["name"]: each["value"] for each in only["env"]}
    assert set(variables) <= {"AMQPFLOW_URL_FILE", "AMQPFLOW_MANAGEMENT_URL_FILE"}
    assert {value.removeprefix(f"{MOUNTED}/") for value in variables.values()} == set(keys)
    assert "AMQPFLOW_URL_FILE" in variables


def test_pods_are_locked_down_and_leave_time_to_stop() -> None:
    for name, pod in PODS.items():
        security = container(name)["securityContext"]
        assert security["runAsNonRoot"]
        assert security["readOnlyRootFilesystem"]
        assert not pod["automountServiceAccountToken"]
    arguments = container("Deployment/orders-consumer")["args"]
    stopping = parse_duration(arguments[arguments.index("--shutdown-timeout") + 1]) / 1000
    assert PODS["Deployment/orders-consumer"]["terminationGracePeriodSeconds"] > stopping
    (port,) = container("Deployment/orders-consumer")["ports"]
    assert arguments[arguments.index("--health-port") + 1] == str(port["containerPort"])
    for probe in ("readinessProbe", "livenessProbe"):
        assert container("Deployment/orders-consumer")[probe]["httpGet"]["port"] == port["name"]


def test_the_image_holds_what_the_commands_name() -> None:
    dockerfile = (K8S / "Dockerfile").read_text()
    copied = re.search(r"^COPY (.+) \./$", dockerfile, re.MULTILINE)
    assert copied is not None
    assert copied[1].split() == ["service.py", "topology.yaml"]
    assert all((ORDERS / name).is_file() for name in copied[1].split())
    assert 'ENTRYPOINT ["amqpflow"]' in dockerfile
    assert len({container(name)["image"] for name in PODS}) == 1


def test_the_page_names_every_manifest_and_no_other() -> None:
    named = set(re.findall(r"k8s/([\w-]+\.yaml|Dockerfile)", HOW_TO.read_text()))
    assert named == {path.name for path in K8S.iterdir()}


@contextmanager
def running(name: str, directory: Path, secrets: Mapping[str, str], **instead: str) -> Iterator[subprocess.Popen[str]]:
    """What a manifest's container runs, with its secrets mounted in a directory."""
    directory.mkdir()
    for key, value in secrets.items():
        (directory / key).write_text(value + "\n")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AMQPFLOW", "RABBITMQ"))}
    mounted = {each["name"]: each["value"].replace(MOUNTED, str(directory)) for each in container(name)["env"]}
    arguments = [instead.get(each, each) for each in container(name)["args"]]
    process = subprocess.Popen(
        [sys.executable, "-m", "amqpflow", *arguments],
        cwd=ORDERS,
        env={**kept, **mounted, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=120)
    return process.returncode, out


def ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


@pytest.mark.one_broker
def test_the_rollout_works_in_any_order_with_the_least_permissions(
    vhost: BrokerAddress, tmp_path: Path, free_port: int
) -> None:
    """The deployment comes up first and waits, the job applies, the pod becomes ready, handles, and stops in time."""
    roles = {each.role: each for each in grants(Topology.load(ORDERS / "topology.yaml").compiled)}
    management = Management(vhost).base

    async def publish() -> None:
        async with Publisher(vhost.url) as publisher:
            await publisher.publish(
                b'{"total": 1, "currency": "EUR"}', exchange="orders.events", routing_key="order.placed"
            )

    with granted(vhost, roles["consume"]) as consume, granted(vhost, roles["apply"]) as apply:
        secrets = {"url": apply.url, "management-url": management}
        service = running(
            "Deployment/orders-consumer", tmp_path / "consumer", {"url": consume.url}, **{"8080": str(free_port)}
        )
        with service as consumer:
            with running("Job/orders-apply", tmp_path / "apply", secrets) as job:
                code, out = ended(job)
                assert code == 0, out
            asyncio.run(until(lambda: ready(free_port), timeout=60, every=0.1))
            asyncio.run(publish())
            assert consumer.stdout is not None
            line = next(line for line in consumer.stdout if line.startswith("charged"))
            assert "at attempt 1" in line
            Management(vhost).put("queues", vhost.vhost, "orders.audit.retry.2s", body=left_over(vhost))
            with running("Job/orders-prune", tmp_path / "prune", secrets) as job:
                code, out = ended(job)
                assert code == 0, out
            assert Management(vhost).get("queues", vhost.vhost, "orders.audit.retry.2s") is None
            consumer.send_signal(signal.SIGTERM)
            code, out = ended(consumer)
            assert code == 0, out


def left_over(vhost: BrokerAddress) -> dict[str, Any]:
    """A retry queue of a delay that the file has no more."""
    found = Management(vhost).get("queues", vhost.vhost, "orders.audit.retry.1s")
    return {"durable": True, "arguments": {**found["arguments"], "x-message-ttl": 2_000}}


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
