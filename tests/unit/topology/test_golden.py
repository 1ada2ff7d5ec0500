"""The topologies that are shipped compile to what the golden files hold; see tests/golden.py on how to renew them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amqpflow.model.routes import CompiledTopology, QueueRoutes, RetryStep
from amqpflow.model.units import format_duration
from amqpflow.services.loading.topology import Topology
from amqpflow.topology.check import check_files
from tests.golden import assert_golden

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "topologies").glob("*.yaml"))
MODELINE = "# yaml-language-server: $schema=./topology.schema.json\n"


def readable(topology: CompiledTopology) -> dict[str, Any]:
    """A compiled topology as JSON values, short enough to be read in a diff."""
    desired = topology.desired
    return {
        "name": topology.name,
        "vhost": topology.vhost,
        "settings": topology.settings,
        "exchanges": {
            name: {"type": each.type, "durable": each.durable, "arguments": dict(each.arguments)}
            for name, each in desired.exchanges.items()
        },
        "queues": {
            name: ", ".join(f"{key}={value!r}" for key, value in each.arguments.items())
            for name, each in desired.queues.items()
        },
        "bindings": [
            f"{each.source} --[{each.routing_key}]--> {each.destination}"
            + (f" {json.dumps(each.arguments)}" if each.arguments else "")
            for each in desired.bindings
        ],
        "policies": {
            name: {
                "pattern": each.pattern,
                "definition": dict(each.definition),
                "apply-to": each.apply_to,
                "priority": each.priority,
            }
            for name, each in desired.policies.items()
        },
        "routes": {name: _routes(each) for name, each in topology.routes.items()},
        "parking_queues": list(topology.parking_queues),
        "required_exchanges": list(topology.required_exchanges),
        "required_queues": list(topology.required_queues),
        "notes": list(topology.notes),
    }


def _routes(routes: QueueRoutes) -> dict[str, Any]:
    native = routes.native
    return {
        "type": routes.queue_type,
        "exchanges": [routes.retry_exchange, routes.parking_exchange],
        "parking": routes.parking_queue,
        "steps": [_step(step) for step in routes.steps],
        "rules": [
            {", ".join(rule.errors): {"park": rule.park} if rule.park else [_step(step) for step in rule.steps or ()]}
            for rule in routes.rules
        ],
        "give_up_after": None if routes.give_up_after_ms is None else format_duration(routes.give_up_after_ms),
        "native": native and f"{native.retries} x {format_duration(native.min_ms)}..{format_duration(native.max_ms)}",
        "consumer_timeout_ms": routes.consumer_timeout_ms,
        "at_least_once": routes.at_least_once,
        "existing": routes.existing,
        "external": routes.external,
    }


def _step(step: RetryStep) -> str:
    return f"{format_duration(step.delay_ms)}: {', '.join(tier.queue for tier in step.tiers)}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_topology_compiles_to_its_golden_file(file: Path) -> None:
    topology = Topology.load(file, environ={})
    text = json.dumps(readable(topology.compiled), indent=2, ensure_ascii=False) + "\n"
    assert_golden(Path(__file__).parent / "golden" / f"{file.stem}.json", text)


def test_the_shipped_topologies_can_live_together() -> None:
    checked = check_files([(file.name, file.read_bytes()) for file in FILES], {})
    assert not checked.errors
    assert [topology.name for topology in checked.topologies] == ["reports", "hello", "billing", "orders", "mail"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_topology_tells_editors_its_schema(file: Path) -> None:
    assert file.read_text().startswith(MODELINE)


def test_there_is_no_golden_file_of_nothing() -> None:
    golden = {file.stem for file in (Path(__file__).parent / "golden").glob("*.json")}
    assert golden == {file.stem for file in FILES}
