"""Topology files as text, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent
from typing import Any

from amqpflow.model.routes import CompiledTopology
from amqpflow.topology.check import Checked, check_files
from amqpflow.topology.reading.document import parse_document
from amqpflow.topology.reading.nodes import ListNode, MappingNode, Node, Scalar
from amqpflow.topology.reading.problems import Problems

HEAD = "version: 1\nname: shop\n"


def check(text: str | bytes, environ: Mapping[str, str] | None = None, *, file: str = "shop.yaml") -> Checked:
    """Check one file as it stands."""
    return check_files([(file, text if isinstance(text, bytes) else text.encode())], environ or {})


def found(text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with one file, as `line:column code`."""
    problems = check(text, environ).diagnostics
    return [f"{each.place.line}:{each.place.column} {each.code}" for each in problems]


def compiled(text: str, environ: Mapping[str, str] | None = None) -> CompiledTopology:
    """A file that is valid, with its head put before it when it has none, compiled."""
    text = dedent(text)
    checked = check(text if "version:" in text else HEAD + text, environ)
    assert not checked.errors, "\n".join(map(str, checked.errors))
    return checked.topologies[0]


def parse(text: str, environ: Mapping[str, str] | None = None) -> Any:
    """YAML as plain values, read as topology files are."""
    problems = Problems("f")
    root = parse_document(text, problems, environ or {})
    assert not problems.fatal, problems.sorted()
    assert root is not None
    return _value_of(root)


def _value_of(node: Node) -> Any:
    match node:
        case Scalar():
            return node.value
        case ListNode():
            return [_value_of(item) for item in node.items]
        case MappingNode():
            return {entry.key: _value_of(entry.node) for entry in node.entries}
