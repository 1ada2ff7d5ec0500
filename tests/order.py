"""The order in which tests run, and which of them stay in one process when there are several.

Unit tests come first: what is wrong with the code itself is known within a minute. Then come the groups that need no
broker, then those that do, long tests before short ones, so that no process has a long one left when the others are
done. Tests that measure time come last, one after the other.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

#: the directories of tests, in their order
DIRECTORIES = ("unit", "docs", "architecture", "soak", "statemachine", "faults", "integration", "cli")

#: fixtures that start a node, or several, once for a module: its tests stay in one process
COSTLY_FIXTURES = {"node", "cluster", "installed"}

TIMING = "timing"

_GROUPS = pytest.StashKey[Path]()  #: the directory of the file in which workers write the groups


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests in the order in which they are to run."""
    return sorted(items, key=_place)


def group_of(item: pytest.Item) -> str:
    """Return the group whose tests stay in one process, "" for a test that may run in any."""
    if item.get_closest_marker(TIMING):
        return TIMING
    return item.path.stem if COSTLY_FIXTURES.intersection(getattr(item, "fixturenames", ())) else ""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Order what is left when all others have chosen, and tell the scheduler which tests stay together."""
    yield
    items[:] = in_order(items)
    if (file := getattr(config, "workerinput", {}).get("groups")) is not None:
        groups = {item.nodeid: group for item in items if (group := group_of(item))}
        new = Path(f"{file}.{os.getpid()}")
        new.write_text(json.dumps(groups))
        new.replace(file)  # each worker writes the same


class GroupScheduling(LoadScopeScheduling):
    """Give each worker one test, or one group of tests, at a time, in the order in which they were collected.

    The marks of `--dist loadgroup` would do, but pytest 9.2 ignores the ids by which pytest-xdist 3.8 hands them on.
    """

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)
        self._groups: dict[str, str] | None = None

    def _split_scope(self, nodeid: str) -> str:
        if self._groups is None:
            self._groups = json.loads(_groups_file(self.config).read_text())
        return self._groups.get(nodeid, nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    return GroupScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker where to write which tests stay together."""
    node.workerinput["groups"] = str(_groups_file(node.config))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _GROUPS in config.stash:
        shutil.rmtree(config.stash[_GROUPS], ignore_errors=True)


def _groups_file(config: pytest.Config) -> Path:
    if _GROUPS not in config.stash:
        config.stash[_GROUPS] = Path(tempfile.mkdtemp(prefix="amqpflow-groups-"))
    return config.stash[_GROUPS] / "groups.json"


def directory_of(test: str) -> str:
    """Return the directory of tests that a test's id names: `cli` for `tests/cli/test_plan.py::test_it`."""
    return next((part for part in test.partition("::")[0].split("/") if part in DIRECTORIES), "")


def _place(item: pytest.Item) -> tuple[bool, int, bool]:
    directory = directory_of(item.nodeid)
    number = DIRECTORIES.index(directory) if directory else len(DIRECTORIES)
    group = group_of(item)
    return group == TIMING, number, not group
