"""The library names arguments; the command line names its options for them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest

import amqpflow
from amqpflow.cli.main import amqpflow as root_command
from amqpflow.cli.safe import OPTIONS, said, with_options

PACKAGE = Path(amqpflow.__file__).parent


def options_of(command: click.Command) -> set[str]:
    """Every option of a command and of those below it."""
    found = {name for each in command.params for name in each.opts}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= options_of(below)
    return found


def test_every_option_that_stands_for_an_argument_exists() -> None:
    assert set(OPTIONS.values()) - options_of(root_command) == set()


def test_an_argument_becomes_its_option_and_other_words_stay() -> None:
    text = "wait with `lock_timeout`, or name a queue with `from_queues`; `message` and limit stay"
    assert with_options(text) == "wait with --lock-timeout, or name a queue with --from; `message` and limit stay"
    assert said("`allow` \x1b[1m") == "--allow \\x1b[1m"


@pytest.mark.parametrize(
    "path", [each for each in PACKAGE.rglob("*.py") if "cli" not in each.relative_to(PACKAGE).parts], ids=str
)
def test_no_text_of_the_library_names_an_option(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]
    others = re.compile(
        r"amqpflow \w+[^;,`]*|apt-get .*|^--url$|rabbitmq\w+ .*"
    )  # whole commands, and a source of a URL
    assert [text for text in texts if re.search(r"(?<![\w-])--[a-z]{2}", others.sub("", text))] == []
