"""The JSON Schema for editors: fresh, true of what is shipped, and never stricter than validate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from amqpflow.topology.language.codes import Code
from amqpflow.topology.language.json_schema import schema_text, topology_schema
from amqpflow.topology.language.keys import TOPOLOGY
from amqpflow.topology.language.types import Key, ListOf, Record, ScalarOr, Shape, Table
from tests.golden import assert_golden
from tests.topology_files import check, parse
from tests.unit.topology.samples import SAMPLES
from tests.unit.topology.test_rules import whole

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "topologies" / "topology.schema.json"
VALIDATOR = jsonschema.Draft7Validator(topology_schema())

# what YAML itself refuses, or reads otherwise than PyYAML does here
_NOT_FOR_SCHEMA = {Code.DUPLICATE_KEY, Code.UNSUPPORTED_YAML, Code.SYNTAX, Code.TOO_COMPLEX}


def refusals(text: str) -> list[str]:
    """What an editor would underline; it sees variables as they are written."""
    return [
        f"{list(error.absolute_path)}: {error.message}"
        for error in VALIDATOR.iter_errors(parse(text.replace("${", "$${")))
    ]


def test_the_shipped_schema_is_the_one_that_is_printed() -> None:
    assert_golden(SHIPPED, schema_text())


def test_the_schema_is_draft_07() -> None:
    jsonschema.Draft7Validator.check_schema(topology_schema())
    assert json.loads(schema_text())["$schema"] == "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize("file", sorted((ROOT / "topologies").glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_topologies_pass(file: Path) -> None:
    assert refusals(file.read_text()) == []


@pytest.mark.parametrize(
    "sample",
    [
        pytest.param(sample, id=f"{code.name}-{number}")
        for code, samples in SAMPLES.items()
        if code not in _NOT_FOR_SCHEMA
        for number, sample in enumerate(samples)
    ],
)
def test_what_the_schema_refuses_validate_refuses_too(sample: str) -> None:
    text = whole(sample)
    if refusals(text):
        assert check(text).errors


@pytest.mark.parametrize(
    "text",
    [
        "name: a\n",
        "version: 2\nname: a\n",
        "version: 1\nname: 5\n",
        "version: 1\nname: a\nsettings: policy\n",
        "version: 1\nname: a\nqueue: {}\n",
        "version: 1\nname: a\nqueues: {'a*': {}}\n",
        "version: 1\nname: a\nqueues: {q: {delivery_limit: 0}}\n",
        "version: 1\nname: a\nqueues: {q: {limits: {max_length_bytes: 5}}}\n",
        "version: 1\nname: a\nqueues: {q: {bindings: [{routing_key: k}]}}\n",
        "version: 1\nname: a\nretry_policies: {p: {delays: [5]}}\n",
        "version: 1\nname: a\nretry_policies: {p: {delays: [5 s]}}\n",
        "version: 1\nname: a\nretry_policies: {p: {delays: [{delay: 5s, tims: 2}]}}\n",
        "version: 1\nname: a\nretry_policies: {p: {delays: [5s], on: [{errors: []}]}}\n",
        "version: 1\nname: a\nexchanges: {e: {type: topics}}\n",
    ],
)
def test_the_schema_refuses_what_an_editor_can_see(text: str) -> None:
    assert refusals(text)
    assert check(text).errors


def test_variables_are_taken_wherever_a_single_value_stands() -> None:
    text = """
version: 1
name: ${N}
settings: ${S:-policies}
retry_policies: {p: {delays: ["${D}", {delay: "${D}", times: "${T}"}], jitter: "${J}"}}
exchanges: {e: {type: "${E}", durable: "${B}"}}
queues: {q: {retry: p, delivery_limit: "${L}", limits: {max_length_bytes: "${M}"}}}
"""
    assert refusals(text) == []


def examples(shape: Shape, path: str = "") -> list[tuple[str, Key]]:
    match shape:
        case Record():
            here = [(f"{path}.{key.name}", key) for key in shape.keys]
            return here + [each for name, key in here for each in examples(key.shape, name)]
        case Table() | ListOf():
            return examples(shape.of, path)
        case ScalarOr():
            return examples(shape.record, path)
    return []


@pytest.mark.parametrize(("path", "key"), [pytest.param(*each, id=each[0][1:]) for each in examples(TOPOLOGY)])
def test_every_key_says_what_it_is_for_with_an_example_that_fits(path: str, key: Key) -> None:
    from amqpflow.topology.language.json_schema import _key

    assert key.help.endswith(".")
    assert key.example is not None
    described: dict[str, Any] = _key(key)
    jsonschema.Draft7Validator(described).validate(key.example)
