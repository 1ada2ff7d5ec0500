"""What is generated is what is there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

import amqpflow
from amqpflow.cli.main import COMMANDS
from amqpflow.model.event import EVENTS, Event
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate_docs() -> ModuleType:
    return load_script("scripts/generate_docs.py")


@pytest.mark.parametrize("page", ["commands", "events", "python"])
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


@pytest.mark.parametrize("kind", EVENTS.values())
def test_every_field_of_an_event_is_explained(generate_docs: ModuleType, kind: type[Event]) -> None:
    section = generate_docs.events_page().partition(f"\n## {kind.name}\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [each.name for each in fields(kind)]


def test_every_public_name_has_a_docstring() -> None:
    assert [name for name in amqpflow.__all__ if not getattr(amqpflow, name).__doc__] == []
