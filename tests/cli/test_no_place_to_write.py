"""A user without a home, a file system that cannot be written: one line that says so, and what to do."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests import commands

TOPOLOGY = "version: 1\nname: shop\nqueues: {orders: {retry: none}}\n"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that runs under a number that has no name."""

    def nobody(_: Any) -> Any:
        raise KeyError

    for name in ("HOME", "XDG_STATE_HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


@pytest.fixture
def topology(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "topology.yaml"
    file.write_text(TOPOLOGY)
    return file


def run(*arguments: str) -> tuple[int, list[str]]:
    done = commands.run(*arguments, env=os.environ)
    return done.code, done.err.splitlines()


@pytest.mark.parametrize("arguments", [("--history",), ("topology.yaml", "--resume", "abc")])
def test_without_a_home_replay_asks_where_to_keep_its_journal(
    homeless: None, topology: Path, arguments: tuple[str, ...]
) -> None:
    code, lines = run("replay", *arguments)
    assert code == 64
    assert len(lines) == 2
    assert "has no home directory, and neither HOME nor XDG_STATE_HOME is set" in lines[0]
    assert "--journal DIR" in lines[1]


def test_without_a_home_a_journal_can_be_kept_where_the_option_says(homeless: None, topology: Path) -> None:
    assert run("replay", "--history", "--journal", "journals") == (0, [])


def test_a_home_that_is_not_known_is_named(topology: Path) -> None:
    code, lines = run("dev", "topology.yaml", "--keep", "~no-such-user/data")
    assert code == 4
    assert "cannot keep data in ~no-such-user/data" in lines[-2]


def test_without_a_place_for_temporary_files_tmpdir_is_named(topology: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/no/such/directory"])
    code, lines = run("parked", "export", "topology.yaml", "--to", "-")
    assert code == 1
    assert "Error: cannot make a temporary file: No usable temporary directory" in lines[-2]
    assert "TMPDIR" in lines[-1]
