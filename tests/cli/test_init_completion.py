"""`amqpflow init` and `amqpflow completion` as users run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from amqpflow.cli.main import COMMANDS
from tests import commands
from tests.commands import Result


def run(*arguments: str, cwd: Path, code: int = 0, **variables: str) -> Result:
    done = commands.run(*arguments, cwd=cwd, env={**os.environ, **variables})
    assert done.code == code, done.out + done.err
    return done


def test_the_file_to_begin_with_is_valid_and_names_the_directory(tmp_path: Path) -> None:
    directory = tmp_path / "My Shop"
    directory.mkdir()
    run("init", cwd=directory)
    found = json.loads(run("validate", "--strict", "topology.yaml", "-o", "json", cwd=directory).out)
    assert (found["valid"], found["topologies"][0]["name"]) == (True, "my-shop")
    first = (directory / "topology.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=./topology.schema.json"
    schema = run("schema", cwd=directory).out
    assert (directory / "topology.schema.json").read_text() == schema


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text("mine")
    (tmp_path / "topology.schema.json").write_text("mine too")
    refused = run("init", cwd=tmp_path, code=4)
    assert "topology.yaml exists" in refused.err
    assert (tmp_path / "topology.yaml").read_text() == "mine"
    run("init", "other.yaml", "--name", "shop", cwd=tmp_path)
    assert (tmp_path / "topology.schema.json").read_text() == "mine too"


@pytest.mark.parametrize("name", ["a b\nversion: 2", "{x}", "", "a" * 300, "x # y"])
def test_a_name_that_is_none_writes_nothing(tmp_path: Path, name: str) -> None:
    run("init", "--name", name, cwd=tmp_path, code=64)
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    assert "cannot write" in run("init", "no/where.yaml", "--name", "shop", cwd=tmp_path, code=64).err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_completes_commands_and_options(shell: str, tmp_path: Path) -> None:
    script = run("completion", shell, cwd=tmp_path).out
    assert "_AMQPFLOW_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=120)
    asked = {"COMP_WORDS": "amqpflow st", "COMP_CWORD": "1" if shell != "fish" else "st"}
    answer = run(cwd=tmp_path, _AMQPFLOW_COMPLETE=f"{shell}_complete", **asked).out
    assert "status" in answer
    assert "apply" not in answer
    asked = {"COMP_WORDS": "amqpflow graph --f", "COMP_CWORD": "2" if shell != "fish" else "--f"}
    assert "--format" in run(cwd=tmp_path, _AMQPFLOW_COMPLETE=f"{shell}_complete", **asked).out


def test_every_command_can_be_completed(tmp_path: Path) -> None:
    asked = {"COMP_WORDS": "amqpflow ", "COMP_CWORD": "1"}
    answer = run(cwd=tmp_path, _AMQPFLOW_COMPLETE="bash_complete", **asked).out
    assert {line.partition(",")[2] for line in answer.splitlines()} == set(COMMANDS)
