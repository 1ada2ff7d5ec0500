"""README.md shows what really happens."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType

import pytest

from amqpflow import Consumer, Topology
from amqpflow.rabbitmq.address import BrokerAddress
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate_docs() -> ModuleType:
    return load_script("scripts/generate_docs.py")


@pytest.mark.one_broker
def test_the_plan_is_the_one_that_apply_prints(generate_docs: ModuleType, vhost: BrokerAddress) -> None:
    environ = {**os.environ, "AMQPFLOW_URL": vhost.url}
    if vhost.management_url:
        environ["AMQPFLOW_MANAGEMENT_URL"] = vhost.management_url
    assert generate_docs.readme_plan() == generate_docs.applied_plan(environ), (
        "on an empty virtual host, run: python scripts/generate_docs.py --plan"
    )


def test_the_handler_can_be_registered(
    generate_docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python in README.md, executed beside the YAML in README.md."""
    (tmp_path / "topology.yaml").write_text(generate_docs.readme_topology())
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", generate_docs.README.read_text(), re.DOTALL)
    assert code
    names: dict[str, object] = {}
    exec(code[1], names)
    assert isinstance(names["consumer"], Consumer)
    assert Topology.load("topology.yaml").warnings == ()


@pytest.mark.parametrize("document", ["tutorial.md", "how-to/consume.md"])
def test_the_code_in_a_document_runs_beside_its_topology(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every Python block is executed, which registers its handlers; no broker is asked."""
    text = (ROOT / "docs" / document).read_text()
    whole = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "version: 1" in block]
    topology = whole[0] if whole else (ROOT / "examples" / "orders" / "topology.yaml").read_text()
    (tmp_path / "topology.yaml").write_text(topology)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {"__name__": "documented"})
