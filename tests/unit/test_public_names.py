"""The public names: `amqpflow/__init__.py` loads each of them, and `amqpflow/__init__.pyi` has the same."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import amqpflow
from amqpflow.model import event
from tests.golden import assert_golden
from tests.scripts import load_script

generate_docs = load_script("scripts/generate_docs.py")


def test_the_stub_has_every_public_name_once() -> None:
    tree = ast.parse(Path(amqpflow.__file__).with_suffix(".pyi").read_text())
    named = [each.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for each in node.names]
    assert sorted(name for name in named if name != "__version__") == amqpflow.__all__
    assert len(set(named)) == len(named)
    assert [name for name in amqpflow.__all__ if not hasattr(amqpflow, name)] == []


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'aplly'"):
        _ = amqpflow.aplly  # type: ignore[attr-defined]


def test_names_and_signatures_are_the_promised_ones() -> None:
    """A difference is a change of the public surface: docs/contributing/compatibility.md says what it takes."""
    assert_golden(Path(__file__).parent / "public_names.txt", "".join(f"{line}\n" for line in public_surface()))


def public_surface() -> Iterator[str]:
    for name in amqpflow.__all__:
        value = getattr(amqpflow, name)
        yield f"{name}{'' if isinstance(value, type) else signature(value)}"
        if isinstance(value, type):
            yield from (f"  {line}" for line in class_surface(value))


def class_surface(kind: type) -> Iterator[str]:
    """Yield the public bases, the constructor and the public members of a class, inherited ones included."""
    for base in kind.__bases__:
        if base.__name__ in amqpflow.__all__:
            yield f"is a {base.__name__}"
    if inspect.isfunction(kind.__init__) and not getattr(kind, "_is_protocol", False):
        yield f"new{signature(kind)}"
    for name, member in inspect.getmembers_static(kind):
        if name in vars(BaseException) or (name.startswith("_") and name != "__call__"):
            continue
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if inspect.isfunction(function):
            awaited = "await " if inspect.iscoroutinefunction(function) else ""
            yield f"{awaited}{name}{signature(function, method=True)}"
        else:
            yield f"{name} = {member!r}" if isinstance(member, int | str) else name


def signature(value: Any, *, method: bool = False) -> str:
    shown: str = generate_docs.signature(value, method=method)
    return " ".join(shown.split()).replace("( ", "(").replace(", )", ")")


def test_every_event_is_public_and_has_its_name_among_the_names() -> None:
    kinds = [each for each in vars(event).values() if isinstance(each, type) and issubclass(each, event.Event)]
    assert [each.__name__ for each in kinds if each.__name__ not in amqpflow.__all__] == []
    assert {each for each in kinds if each.name} == set(event.EVENTS.values())
