"""`amqpflow validate` and `amqpflow schema`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from amqpflow.errors import InvalidTopologyError
from amqpflow.services.loading.topology import Topology
from amqpflow.topology.language.json_schema import schema_text
from amqpflow.topology.reading.document import MAX_BYTES
from tests import commands
from tests.commands import Result

GOOD = "version: 1\nname: {name}\ndefaults: {{retry: none}}\nqueues:\n  {name}.q:\n"
WARNED = "version: 1\nname: warned\nqueues:\n  q:\n"
BROKEN = """version: 1
name: broken
retry_policies:
  standard: {delays: [5s, 3s]}
queues:
  q:
    retry: standart
    limits: {max_length_bytes: 10}
"""


def run(*arguments: str) -> Result:
    return commands.run(*arguments, env=os.environ)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD.format(name="good"))
    (tmp_path / "other.yml").write_text(GOOD.format(name="other"))
    (tmp_path / "warned.yaml").write_text(WARNED)
    (tmp_path / "broken.yaml").write_text(BROKEN)
    return tmp_path


@pytest.mark.usefixtures("write")
class TestValidate:
    def test_a_valid_file_says_what_it_makes(self) -> None:
        done = run("validate", "good.yaml")
        assert (done.code, done.out) == (0, "")
        assert done.err.endswith("valid. good: 1 work queue, 1 parking queue\n")
        assert "publish with a message id" in done.err

    def test_all_problems_are_printed_at_once_in_the_order_of_their_places(self) -> None:
        done = run("validate", "broken.yaml")
        assert done.code == 1
        assert done.out.splitlines() == [
            "broken.yaml:4:3: T304: warning: no queue uses retry policy standard"
            " (retry: standard in a queue, or remove it)",
            "broken.yaml:4:27: T402: delay 3s comes after the longer 5s (sort the delays, shortest first)",
            "broken.yaml:7:12: T302: retry policy 'standart' is not defined (did you mean standard?)",
            "broken.yaml:8:32: T107: max_length_bytes: 10 has no unit: write 10B, or use KiB, MiB, GiB or TiB",
        ]
        assert done.err == "3 errors, 1 warning: not valid\n"

    def test_warnings_fail_only_when_asked(self) -> None:
        relaxed = run("validate", "warned.yaml")
        assert relaxed.code == 0
        assert relaxed.out.startswith("warned.yaml:4:3: T305: warning: queue q names no retry policy")
        assert "1 warning: valid. warned:" in relaxed.err
        strict = run("validate", "--strict", "warned.yaml")
        assert (strict.code, strict.out) == (1, relaxed.out)
        assert "1 warning: valid, but not with --strict" in strict.err

    def test_several_files_are_checked_against_each_other(self, write: Path) -> None:
        (write / "copy.yaml").write_text(GOOD.format(name="good"))
        done = run("validate", "good.yaml", "other.yml", "copy.yaml")
        assert done.code == 1
        assert done.out == (
            "copy.yaml:2:7: T208: good.yaml is a topology called good as well, in the same virtual host "
            "(give it a name of its own)\n"
        )

    def test_a_directory_is_its_topology_files(self, write: Path) -> None:
        (write / "notes.txt").write_text("no topology")
        (write / ".hidden.yaml").write_text("no topology")
        done = run("validate", str(write))
        assert done.code == 1
        assert {line.partition(":")[0] for line in done.out.splitlines()} == {
            str(write / "broken.yaml"),
            str(write / "warned.yaml"),
        }
        (write / "broken.yaml").unlink()
        assert run("validate", str(write)).code == 0

    def test_a_file_that_is_named_twice_counts_once(self, write: Path) -> None:
        assert run("validate", "good.yaml", "./good.yaml", str(write / "good.yaml")).code == 0

    def test_what_cannot_be_read_is_a_problem_like_any_other(self, write: Path) -> None:
        (write / "empty").mkdir()
        done = run("validate", "nope.yaml", "empty", "broken.yaml")
        assert done.code == 1
        lines = done.out.splitlines()
        assert "nope.yaml:1:1: T001: cannot be read: No such file or directory" in lines
        assert "empty:1:1: T001: the directory holds no topology (their names end in .yaml or .yml)" in lines
        assert any(line.startswith("broken.yaml:7:12: T302") for line in lines)

    def test_a_file_without_permission_is_said(self, write: Path) -> None:
        if os.geteuid() == 0:
            path = "/proc/self/mem"  # even root gets an input/output error
        else:
            (write / "secret.yaml").write_text("")
            (write / "secret.yaml").chmod(0)
            path = "secret.yaml"
        done = run("validate", path)
        assert done.code == 1
        assert f"{path}:1:1: T001: cannot be read: " in done.out

    def test_a_large_file_is_refused_without_being_read_whole(self, write: Path) -> None:
        with (write / "large.yaml").open("wb") as file:
            file.truncate(50 * MAX_BYTES)
        done = run("validate", "large.yaml")
        assert (done.code, done.out.split(" (")[0]) == (1, "large.yaml:1:1: T002: the file is larger than 1 MiB")

    def test_variables_come_from_the_environment(self, write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (write / "good.yaml").write_text("version: 1\nname: a\nvhost: ${SHOP_VHOST}\n")
        assert "good.yaml:3:8: T009: the environment variable SHOP_VHOST is not set" in (
            run("validate", "good.yaml").out
        )
        monkeypatch.setenv("SHOP_VHOST", "shop")
        assert run("validate", "good.yaml").code == 0

    def test_json_holds_every_part_of_a_problem(self) -> None:
        done = run("validate", "-o", "json", "broken.yaml", "good.yaml")
        assert (done.code, done.err) == (1, "")
        said = json.loads(done.out)
        assert {key: said[key] for key in ("version", "valid", "errors", "warnings")} == {
            "version": 1,
            "valid": False,
            "errors": 3,
            "warnings": 1,
        }
        assert said["problems"][2] == {
            "file": "broken.yaml",
            "line": 7,
            "column": 12,
            "code": "T302",
            "severity": "error",
            "message": "retry policy 'standart' is not defined",
            "hint": "did you mean standard?",
        }
        assert said["topologies"] == []

    def test_json_of_valid_files_lists_their_topologies(self) -> None:
        said = json.loads(run("validate", "-o", "json", "good.yaml", "warned.yaml").out)
        assert (said["valid"], said["warnings"]) == (True, 1)
        assert [(each["name"], each["vhost"], each["queues"]) for each in said["topologies"]] == [
            ("good", None, ["good.q"]),
            ("warned", None, ["q"]),
        ]
        assert not json.loads(run("validate", "--strict", "-o", "json", "warned.yaml").out)["valid"]

    def test_nothing_in_a_file_acts_on_the_terminal(self, write: Path) -> None:
        (write / "evil.yaml").write_text(
            'version: 1\nname: a\n"\\e[31mx\\u202e": 1\nqueues: {"\\e[2Jq": {retry: none}}\n'
        )
        done = run("validate", "evil.yaml")
        assert "\x1b" not in done.out + done.err
        assert "\u202e" not in done.out + done.err
        assert re.search(r"T101: unknown key '\S*\[31mx", done.out)

    def test_a_call_without_files_is_wrong_usage(self) -> None:
        done = run("validate")
        assert done.code == 64
        assert "Missing argument 'FILE...'" in done.err


def test_schema_prints_the_schema() -> None:
    done = run("schema")
    assert (done.code, done.out, done.err) == (0, schema_text(), "")


def test_validate_needs_no_tty_and_no_utf_8(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nname: a\nqueues: {tëst: {retry: none}}\n")
    run = subprocess.run(
        [sys.executable, "-m", "amqpflow", "validate", "a.yaml"],
        capture_output=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "LC_ALL": "C"},
        timeout=120,
    )
    assert run.returncode == 1
    assert run.stdout.startswith(b"a.yaml:3:10: T201: queue")
    assert b"Traceback" not in run.stderr


class TestLoad:
    def test_a_topology_is_loaded(self, write: Path) -> None:
        topology = Topology.load(write / "warned.yaml")
        assert (topology.name, topology.vhost, list(topology.routes)) == ("warned", "", ["q"])
        assert topology.file == str(write / "warned.yaml")
        assert [each.code for each in topology.warnings] == ["T305"]

    def test_all_problems_are_in_the_exception(self, write: Path) -> None:
        with pytest.raises(InvalidTopologyError) as caught:
            Topology.load(str(write / "broken.yaml"))
        assert [each.code for each in caught.value.diagnostics] == ["T304", "T402", "T302", "T107"]
        assert str(caught.value).count("\n") == 3

    def test_a_missing_file_is_such_a_problem(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidTopologyError, match="T001: cannot be read: No such file or directory"):
            Topology.load(tmp_path / "nope.yaml")
        with pytest.raises(InvalidTopologyError, match="T001: cannot be read: embedded null byte"):
            Topology.load("nul\0.yaml")

    def test_a_directory_stands_for_its_only_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(GOOD.format(name="a"))
        assert Topology.load(tmp_path).name == "a"
        (tmp_path / "b.yaml").write_text(GOOD.format(name="b"))
        with pytest.raises(InvalidTopologyError, match="more than one topology"):
            Topology.load(tmp_path)

    def test_the_environment_can_be_given(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("version: 1\nname: ${N}\n")
        assert Topology.load(tmp_path / "a.yaml", environ={"N": "shop"}).name == "shop"
        with pytest.raises(InvalidTopologyError, match="N is not set"):
            Topology.load(tmp_path / "a.yaml", environ={})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("arguments", [["schema"], ["--help"], ["validate", "a.yaml", "-o", "json"]])
def test_output_that_cannot_be_written_is_one_line_and_exit_code_1(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nname: a\nqueues: {test: {retry: none}}\n")
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            [sys.executable, "-m", "amqpflow", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
            text=True,
            timeout=120,
        )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == "Error: cannot write the output: No space left on device"
    assert "Traceback" not in run.stderr
