"""
The order in which tests run, and which of them stay in one process when there are several.

Unit tests come first: what is wrong with the code itself is known within a minute. Then come the groups that need no
broker, then those that do, long tests before short ones, so that no process has a long one left when the others are
done. Tests that measure time come last, one after the other.
"""

from __future__ import annotations

import pytest

#: the directories of tests, in their order
DIRECTORIES = ("unit", "docs", "architecture", "soak", "statemachine", "faults", "integration", "cli")

#: fixtures that start a node, or several, once for a module: its tests stay in one process
COSTLY_FIXTURES = {"node", "cluster", "installed"}

TIMING = "timing"


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests in the order in which they are to run."""
    return sorted(items, key=_place)


def group_of(item: pytest.Item) -> str:
    """Return the group whose tests stay in one process, "" for a test that may run in any."""
    if item.get_closest_marker(TIMING):
        return TIMING
    return item.path.stem if COSTLY_FIXTURES.intersection(getattr(item, "fixturenames", ())) else ""


def keep_together(items: list[pytest.Item]) -> None:
    """
    Append the groups to the tests' ids, which is where `--dist loadgroup` looks for them.

    Its own mark does the same, but before --lf has chosen by the ids that it knows.
    """
    for item in items:
        if group := group_of(item):
            item._nodeid = f"{item.nodeid}@{group}"


def without_group(test: str) -> str:
    """Return a test's id as it is in a run by one process."""
    return test[: test.rfind("@")] if test.rfind("@") > test.rfind("]") else test


def directory_of(test: str) -> str:
    """Return the directory of tests that a test's id names: `cli` for `tests/cli/test_plan.py::test_it`."""
    return next((part for part in test.partition("::")[0].split("/") if part in DIRECTORIES), "")


def _place(item: pytest.Item) -> tuple[bool, int, bool]:
    directory = directory_of(item.nodeid)
    number = DIRECTORIES.index(directory) if directory else len(DIRECTORIES)
    group = group_of(item)
    return group == TIMING, number, not group
