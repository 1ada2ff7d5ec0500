"""Every dependency has its line in ADR 0005 and is locked, and nothing is required that is not imported."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from amqpflow.rabbitmq.client_library import CLIENT_LIBRARIES

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = {"aio-pika": "aio_pika", "pyyaml": "yaml"}


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[<>=~ \[]", each)[0] for each in requirements]


REQUIRED = names(PROJECT["project"]["dependencies"])


@pytest.mark.parametrize("name", [*REQUIRED, *names(PROJECT["project"]["optional-dependencies"]["docker"])])
def test_a_dependency_has_a_row(name: str) -> None:
    rows = re.findall(r"^\| ([\w-]+)", (ROOT / "docs/adr/0005-dependencies.md").read_text(), re.MULTILINE)
    assert name in {row.lower() for row in rows}


@pytest.mark.parametrize("name", REQUIRED)
def test_a_dependency_is_imported_by_the_package(name: str) -> None:
    module = MODULES.get(name, name)
    imports = re.compile(rf"^\s*(?:import|from) {module}\b", re.MULTILINE)
    assert any(imports.search(path.read_text()) for path in (ROOT / "amqpflow").rglob("*.py"))


def test_the_versions_that_connect_asks_for_are_those_that_are_required() -> None:
    required = PROJECT["project"]["dependencies"]
    assert {name + versions for name, versions in CLIENT_LIBRARIES.items()} <= set(required)


def test_the_extra_all_has_all_of_them() -> None:
    others = sorted(set(PROJECT["project"]["optional-dependencies"]) - {"all"})
    assert PROJECT["project"]["optional-dependencies"]["all"] == [f"amqpflow[{','.join(others)}]"]


def test_what_is_locked_satisfies_what_is_required() -> None:
    """Requirements of the package and of development, in the versions that scripts/setup installs."""
    lock = (ROOT / "constraints.txt").read_text()
    groups = PROJECT["dependency-groups"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(each for group in groups for each in group)]
    for requirement in map(Requirement, wanted):
        found = re.search(rf"^{re.escape(canonicalize_name(requirement.name))}==([^\s;]+)", lock, re.MULTILINE)
        assert found, f"{requirement.name} is not locked: make lock"
        assert found[1] in requirement.specifier, f"{requirement} is locked as {found[1]}: make lock"
