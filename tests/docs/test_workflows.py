"""The workflows, the hooks and the compose file name what is there."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CI = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(workflow: Path) -> Iterator[str]:
    """Yield what the steps of a workflow run, once for each value of a matrix."""
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for step in job["steps"]:
            command = step.get("run", "")
            found = re.search(r"\$\{\{ matrix\.(\w+) \}\}", command)
            yield from (command.replace(found[0], each) for each in matrix[found[1]]) if found else [command]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_targets_and_tests_of_a_workflow_exist(workflow: Path) -> None:
    called = "\n".join(commands(workflow))
    assert set(re.findall(r"^\s*make ([a-z]+)", called, re.MULTILINE)) <= TARGETS
    assert [name for name in re.findall(r"\btests/\w+", called) if not (ROOT / name).is_dir()] == []


def test_both_commands_run_on_every_python() -> None:
    pythons = CI["commands"]["strategy"]["matrix"]["python"]
    minors = [int(version.removeprefix("3.")) for version in pythons]
    assert f">={pythons[0]}" == PROJECT["project"]["requires-python"]
    assert all(later == earlier + 1 for earlier, later in pairwise(minors))
    classifiers = {text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if "Python :: 3." in text}
    assert classifiers <= set(pythons)
    assert [step["run"] for step in CI["commands"]["steps"] if "run" in step] == [
        "make check",
        "make demo",
        "make test",
    ]


def test_the_brokers_are_those_that_the_readme_names() -> None:
    tested = re.search(r"tested on ([\d., ]+ and [\d.]+\d)", (ROOT / "README.md").read_text())
    assert tested
    assert CI["brokers"]["strategy"]["matrix"]["rabbitmq"] == re.findall(r"\d+\.\d+", tested[1])


def test_a_broker_is_given_where_the_tests_look_for_it() -> None:
    job = CI["brokers"]
    amqp, management = job["env"]["AMQPFLOW_TEST_URLS"].split("|")
    ports = [each.partition(":")[0] for each in job["services"]["rabbitmq"]["ports"]]
    assert [re.search(r":(\d+)/?$", url)[1] for url in (amqp, management)] == ports  # type: ignore[index]


def test_the_hooks_are_tools_of_the_virtual_environment_or_scripts() -> None:
    hooks: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for hook in hooks:
        tool = hook["entry"].split()[0]
        assert tool.startswith(".venv/bin/") or (ROOT / tool).exists(), hook["id"]


def test_the_image_copies_what_the_context_has() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for each in copied for name in each.split()}
    assert names == {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_the_example_is_where_the_compose_file_mounts_it() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    source = compose["services"]["amqpflow"]["volumes"][0].partition(":")[0]
    assert (ROOT / source / "topology.yaml").is_file()


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ("Say what changed\n\nWhy it did.\n", ""),
        ("# a comment of git\nSay what changed\n", ""),
        ("a" * 72, ""),
        ("ä" * 72, ""),
        ("a" * 73, "the subject has 73 characters"),
        ("Say what changed.", "the subject ends with a full stop"),
        ("fixup! " + "a" * 80, ""),
    ],
    ids=["with a body", "after a comment", "72", "72 of two bytes", "73", "full stop", "fixup"],
)
def test_the_subject_of_a_commit_is_checked(message: str, refused: str, tmp_path: Path) -> None:
    file = tmp_path / "COMMIT_EDITMSG"
    file.write_text(message)
    environment = {**os.environ, "LC_ALL": "C"}  # characters are counted as such in any locale
    done = subprocess.run(
        [ROOT / "scripts" / "check-subject", file], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, refused in done.stderr) == (bool(refused), True), done.stderr
