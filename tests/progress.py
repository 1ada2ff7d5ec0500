"""A line of progress now and then, and what to do next after an interrupted run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from tests.order import directory_of

EVERY = 30.0
"""Seconds between two lines."""

SECONDS: Mapping[str, float] = {
    "unit": 0.03, "docs": 0.3, "architecture": 10, "soak": 10, "statemachine": 15, "faults": 3, "integration": 1,
    "cli": 0.8,
}  # fmt: skip
"""About how long a test of a directory takes. Only how these compare with each other matters."""

_CACHE = "amqpflow/seconds"


class Progress:
    """Count what has run, and estimate how long the rest takes.

    A test weighs the seconds that it took the last time, or what is usual in its directory. The rest takes as long for
    its weight as what has run took for its own: so the number of processes and the speed of the machine are in it.

    It belongs to the process that reports, which is not one of those that run tests when there are several.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._cache: pytest.Cache | None = getattr(config, "cache", None)  # there is none with -p no:cacheprovider
        self._known: dict[str, float] = (self._cache.get(_CACHE, None) if self._cache is not None else None) or {}
        self._taken: dict[str, float] = {}
        self._all: tuple[str, ...] = ()
        self._weight_left = 0.0
        self._weight_done = 0.0
        self._running: dict[str, None] = {}
        self._ended = 0
        self._outcomes: Counter[str] = Counter()
        self._began = self._printed = time.monotonic()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:
            self._collected(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        if not self._all:
            self._collected(ids)

    def _collected(self, tests: Iterable[str]) -> None:
        self._all = tuple(tests)
        self._weight_left = sum(map(self._weight, self._all))
        self._began = self._printed = time.monotonic()

    def _weight(self, test: str) -> float:
        return self._known.get(test) or SECONDS.get(directory_of(test), 1.0)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._taken[report.nodeid] = self._taken.get(report.nodeid, 0.0) + report.duration
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[report.outcome] += 1

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)
        self._ended += 1
        weight = self._weight(nodeid)
        self._weight_done += weight
        self._weight_left -= weight
        now = time.monotonic()
        if now - self._printed >= EVERY:
            self._printed = now
            self._print(now - self._began)

    def _print(self, elapsed: float) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        left = elapsed * max(0.0, self._weight_left) / self._weight_done
        if terminal._tw.width_of_current_line:
            terminal.write("\n")
        terminal.write_line(
            f"{self._ended} of {len(self._all)} tests: {said(self._outcomes)}; {minutes(elapsed)}, "
            f"about {minutes(left)} left"
        )

    def pytest_sessionfinish(self) -> None:
        if self._cache is not None and self._taken:
            rounded = {test: round(seconds, 2) for test, seconds in self._taken.items()}
            self._cache.set(_CACHE, {**self._known, **rounded})

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        if exitstatus != pytest.ExitCode.INTERRUPTED or not (self._ended or self._running):
            return
        terminalreporter.section("interrupted")
        terminalreporter.line(f"{said(self._outcomes)}, {len(self._all) - self._ended - len(self._running)} not run")
        for test in self._running:
            terminalreporter.line(f"was running: {test}")
        if self._outcomes["failed"]:
            terminalreporter.line("to go on with what failed: make test PYTEST_ARGS=--lf")


def said(outcomes: Mapping[str, int]) -> str:
    """Return `1 failed, 20 passed` for counts of outcomes."""
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()) if count) or "none ended"


def minutes(seconds: float) -> str:
    """Return `2 min 05 s`."""
    return f"{int(seconds) // 60} min {int(seconds) % 60:02} s" if seconds >= 60 else f"{int(seconds)} s"
