"""The order of tests, and what is printed while they run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import progress
from tests.order import directory_of, in_order
from tests.progress import Progress, minutes, said


class Item:
    """As much of a test as its order depends on."""

    def __init__(self, nodeid: str, *marks: str, fixtures: tuple[str, ...] = ()) -> None:
        self.nodeid = nodeid
        self.fixturenames = fixtures
        self.path = SimpleNamespace(stem=nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py"))
        self.marks = marks

    def get_closest_marker(self, name: str) -> Any:
        return name if name in self.marks else None


def ordered(*items: Item) -> list[str]:
    return [item.nodeid.partition("::")[2] for item in in_order(list(items))]  # type: ignore[arg-type]


def test_unit_tests_are_first_and_tests_of_time_last() -> None:
    assert ordered(
        Item("tests/cli/test_plan.py::plans"),
        Item("tests/elsewhere/test_new.py::new"),
        Item("tests/unit/test_a.py::takes_a_second", "timing"),
        Item("tests/integration/test_x.py::integrates"),
        Item("tests/docs/test_links.py::links"),
        Item("tests/unit/services/test_z.py::first"),
        Item("tests/unit/services/test_a.py::second"),
    ) == ["first", "second", "links", "integrates", "plans", "new", "takes_a_second"]


def test_what_shares_a_costly_fixture_comes_first_in_its_directory() -> None:
    items = [
        Item("tests/faults/test_a.py::alone[a@b]"),
        Item("tests/faults/test_own.py::one", fixtures=("node",)),
        Item("tests/faults/test_own.py::another[3]", fixtures=("node", "vhost")),
        Item("tests/unit/test_a.py::timed[a@b]", "timing"),
    ]
    assert ordered(*items) == ["one", "another[3]", "alone[a@b]", "timed[a@b]"]


MODULE = """
import os, pathlib, pytest

def note(group):
    with pathlib.Path(group).open("a") as file:
        print(os.getpid(), file=file)

@pytest.fixture(scope="module")
def node():
    return None

@pytest.mark.parametrize("number", range(4))
def test_on_a_node(node, number):
    note(__name__)

@pytest.mark.timing
@pytest.mark.parametrize("number", range(4))
def test_of_time(number):
    note("timing")
"""


def test_workers_keep_tests_of_one_node_together_and_run_tests_of_time_one_after_the_other(tmp_path: Path) -> None:
    """By the real pytest-xdist: how it learns which tests belong together is not a part of its interface."""
    for name in ("test_one", "test_other"):
        (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = timing\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.order", "-n", "2", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert "16 passed" in done.stdout, done.stdout + done.stderr
    workers = {group: (tmp_path / group).read_text().split() for group in ("test_one", "test_other", "timing")}
    assert [len(each) for each in workers.values()] == [4, 4, 8]
    assert [len(set(each)) for each in workers.values()] == [1, 1, 1]
    assert len({*workers["test_one"], *workers["test_other"]}) == 2


def test_the_directory_is_that_below_tests() -> None:
    assert directory_of("tests/unit/cli/test_x.py::test_docs[cli]") == "unit"
    assert directory_of("test_x.py::test_it") == ""


class Terminal:
    def __init__(self) -> None:
        self._tw = SimpleNamespace(width_of_current_line=3)
        self.lines: list[str] = []
        self.write_line = self.line = self.lines.append

    def write(self, text: str) -> None:
        assert text == "\n"

    def section(self, title: str) -> None:
        self.lines.append(title)


def test_the_rest_takes_as_long_for_its_weight_as_what_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now, terminal = 1000.0, Terminal()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    remembered = {"tests/cli/a.py::a": 1.0, "tests/cli/a.py::b": 1.0, "tests/cli/a.py::c": 6.0}
    cache = SimpleNamespace(get=lambda *_: remembered, set=lambda _, value: remembered.update(value))
    manager = SimpleNamespace(get_plugin=lambda _: terminal)
    lines = Progress(SimpleNamespace(pluginmanager=manager, cache=cache))  # type: ignore[arg-type]
    lines.pytest_xdist_node_collection_finished(None, list(remembered))
    for test, outcome in (("tests/cli/a.py::a", "passed"), ("tests/cli/a.py::b", "failed")):
        now += 20
        lines.pytest_runtest_logstart(test)
        report: Any = SimpleNamespace(nodeid=test, when="call", outcome=outcome, duration=2.0)
        lines.pytest_runtest_logreport(report)
        lines.pytest_runtest_logfinish(test)
    assert terminal.lines == ["2 of 3 tests: 1 failed, 1 passed; 40 s, about 2 min 00 s left"]
    lines.pytest_runtest_logstart("tests/cli/a.py::c")
    lines.pytest_terminal_summary(terminal, pytest.ExitCode.INTERRUPTED)  # type: ignore[arg-type]
    assert terminal.lines[1:4] == ["interrupted", "1 failed, 1 passed, 0 not run", "was running: tests/cli/a.py::c"]
    assert "--lf" in terminal.lines[4]
    lines.pytest_sessionfinish()
    assert remembered["tests/cli/a.py::a"] == 2.0


def test_counts_and_durations_in_words() -> None:
    assert said({"passed": 3, "failed": 1, "skipped": 0}) == "1 failed, 3 passed"
    assert said({}) == "none ended"
    assert [minutes(each) for each in (0.4, 59.9, 60, 3605)] == ["0 s", "59 s", "1 min 00 s", "60 min 05 s"]
