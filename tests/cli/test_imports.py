"""What starts often must not load what it does not use: shells complete commands, editors validate on every save."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"aio_pika", "aiormq", "pamqp", "rich", "httpx2", "asyncio", "testcontainers"}

SCRIPT = """
import atexit, json, pathlib, sys
sys.argv = ["amqpflow", *{arguments!r}]
atexit.register(lambda: pathlib.Path({output!r}).write_text(json.dumps(sorted(sys.modules))))
from amqpflow.cli.main import main
main()
"""


def modules_after(output: Path, *arguments: str) -> set[str]:
    """The modules that are loaded when the command has run, in a process of its own."""
    script = SCRIPT.format(arguments=arguments, output=str(output))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return {name.partition(".")[0] for name in json.loads(output.read_text())}


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("validate", "examples/orders/topology.yaml")],
    ids=["help", "version", "validate"],
)
def test_these_commands_load_no_amqp_no_http_and_no_rich(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert not modules_after(tmp_path / "modules", *arguments) & HEAVY


def test_help_does_not_read_yaml_either(tmp_path: Path) -> None:
    assert not modules_after(tmp_path / "modules", "--help") & {"yaml", "jsonschema"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = "import json, sys, amqpflow; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert not {name.partition(".")[0] for name in json.loads(output.stdout)} & (HEAVY | {"click", "yaml"})
