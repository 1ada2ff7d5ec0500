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


def keep_together(items: list[pytest.Item]) -> None:
    """Give tests that must stay in one process the mark by which `--dist loadgroup` keeps them there."""
    for item in items:
        if item.get_closest_marker(TIMING):
            item.add_marker(pytest.mark.xdist_group(TIMING))
        elif COSTLY_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def directory_of(test: str) -> str:
    """Return the directory of tests that a test's id names: `cli` for `tests/cli/test_plan.py::test_it`."""
    return next((part for part in test.partition("::")[0].split("/") if part in DIRECTORIES), "")


def _place(item: pytest.Item) -> tuple[bool, int, bool]:
    directory = directory_of(item.nodeid)
    number = DIRECTORIES.index(directory) if directory else len(DIRECTORIES)
    together = item.get_closest_marker("xdist_group") is not None
    return item.get_closest_marker(TIMING) is not None, number, not together
