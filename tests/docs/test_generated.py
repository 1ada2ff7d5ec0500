"""What is generated is what is there."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

import amqpflow
from amqpflow.cli.main import COMMANDS
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate_docs() -> ModuleType:
    return load_script("scripts/generate_docs.py")


@pytest.mark.parametrize("page", ["commands", "python"])
def test_a_generated_page_is_up_to_date(generate_docs: ModuleType, page: str) -> None:
    written = (ROOT / "docs" / "reference" / f"{page}.md").read_text()
    assert written == getattr(generate_docs, f"{page}_page")(), "run: python scripts/generate_docs.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    headings = re.findall(r"^## amqpflow (\S+)$", (ROOT / "docs/reference/commands.md").read_text(), re.MULTILINE)
    assert command in headings


@pytest.mark.parametrize("name", amqpflow.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert re.search(rf"^### {name}$", (ROOT / "docs/reference/python.md").read_text(), re.MULTILINE)


def test_every_public_name_has_a_docstring() -> None:
    assert [name for name in amqpflow.__all__ if not getattr(amqpflow, name).__doc__] == []
