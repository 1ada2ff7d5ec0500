"""The public names are in one place, `amqpflow/__init__.pyi`, and can be had."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import amqpflow


def test_the_stub_has_every_public_name_once() -> None:
    tree = ast.parse(Path(amqpflow.__file__).with_suffix(".pyi").read_text())
    named = [each.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for each in node.names]
    assert sorted(name for name in named if name != "__version__") == amqpflow.__all__
    assert len(set(named)) == len(named)
    assert [name for name in amqpflow.__all__ if not hasattr(amqpflow, name)] == []


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'aplly'"):
        _ = amqpflow.aplly  # type: ignore[attr-defined]
