"""The manifest: what is written is what is read, and anything else is told for what it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.resources import Binding
from amqpflow.planning.values.manifest import Manifest, UnreadableManifestError, from_json, parameter_name, to_json

TEXT = st.text(max_size=20)
BINDINGS = st.builds(
    Binding,
    source=TEXT,
    destination=TEXT,
    destination_type=st.sampled_from(["queue", "exchange"]),
    routing_key=TEXT,
    arguments=st.dictionaries(TEXT, st.one_of(st.integers(), TEXT, st.booleans()), max_size=2),
)
ADOPTED = st.tuples(st.sampled_from(["queue", "exchange", "policy"]), TEXT)
GOOD = to_json(Manifest(topology="shop", vhost="/", bindings=(Binding(source="e", destination="q"),)))


@given(
    st.lists(BINDINGS, unique_by=lambda each: each.identity),
    st.frozensets(ADOPTED),
    st.dictionaries(TEXT, st.integers(0)),
)
def test_it_comes_back_as_it_was_written(
    bindings: list[Binding], adopted: frozenset[tuple[str, str]], retiring: dict[str, int]
) -> None:
    parts = {part: tuple(bindings[at::3]) for at, part in enumerate(("bindings", "unproven", "found"))}
    manifest = Manifest(topology="shop", vhost="/", **parts, adopted=adopted, retiring=retiring)
    written = json.loads(json.dumps(to_json(manifest)))
    read = from_json(written, vhost="/", topology="shop")
    assert to_json(read) == to_json(manifest)
    assert read.says_the_same(manifest)
    assert read.retiring == retiring


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("text", "not an object"),
        (None, "not an object"),
        ({}, "no format"),
        ({"format": 3}, "its format is 3, and this version of amqpflow reads 2"),
        ({"format": True}, "no format"),
        ({**GOOD, "topology": "books"}, "that of topology books in virtual host /"),
        ({**GOOD, "vhost": "v"}, "that of topology shop in virtual host v"),
        ({**GOOD, "bindings": None}, "damaged"),
        ({**GOOD, "bindings": [["e", "z", "q", ""]]}, "damaged"),
        ({**GOOD, "bindings": [["e", "q", "q"]]}, "damaged"),
        ({**GOOD, "bindings": [["e", "q", 7, ""]]}, "damaged"),
        ({**GOOD, "unproven": [["e", "q", 7, ""]]}, "damaged"),
        ({key: value for key, value in GOOD.items() if key != "found"}, "damaged"),
        ({**GOOD, "adopted": [["vhost", "x"]]}, "damaged"),
        ({**GOOD, "adopted": [["binding", "x"]]}, "damaged"),
        ({**GOOD, "adopted": ["x"]}, "damaged"),
        ({**GOOD, "retiring": {"q": "soon"}}, "damaged"),
        ({**GOOD, "retiring": {"q": -1}}, "damaged"),
        ({key: value for key, value in GOOD.items() if key != "adopted"}, "damaged"),
    ],
)
def test_anything_else_is_told(value: Any, said: str) -> None:
    with pytest.raises(UnreadableManifestError, match=said):
        from_json(value, vhost="/", topology="shop")


@given(TEXT, TEXT, TEXT, TEXT)
def test_no_two_topologies_share_a_parameter(vhost: str, topology: str, other: str, second: str) -> None:
    same = (vhost, topology) == (other, second)
    assert (parameter_name(vhost, topology) == parameter_name(other, second)) is same


def test_a_dot_in_a_virtual_host_is_no_dot_of_the_name() -> None:
    assert parameter_name("/", "shop") == "amqpflow./.shop"
    assert parameter_name("a.b", "c") != parameter_name("a", "b.c")


def test_what_it_records_is_said() -> None:
    old = Manifest(topology="shop", vhost="/", adopted=frozenset({("queue", "a")}), retiring={"t": 1})
    new = Manifest(
        topology="shop",
        vhost="/",
        bindings=(Binding(source="e", destination="q"), Binding(source="e", destination="r")),
        unproven=(Binding(source="e", destination="s"),),
        found=(Binding(source="e", destination="t"),),
        adopted=frozenset({("policy", "b")}),
        retiring={"u": 2},
    )
    assert list(new.differences(old)) == [
        "adopts policy b",
        "releases queue a",
        "2 bindings recorded",
        "1 binding to be made",
        "1 binding found there",
        "queue u is being retired",
        "queue t is retired",
    ]
    assert list(old.differences(new))[2] == "4 bindings dropped"
    made = Manifest(topology="shop", vhost="/", bindings=new.unproven)
    assert list(made.differences(Manifest(topology="shop", vhost="/", unproven=made.bindings))) == [
        "1 binding recorded"
    ]


def test_a_manifest_of_format_1_proves_no_binding() -> None:
    """It recorded every binding of the file, whoever had made it."""
    old = {"format": 1, "topology": "shop", "vhost": "/", "bindings": [["e", "q", "q", ""]]}
    read = from_json({**old, "adopted": [["queue", "a"]], "retiring": {"t": 1}}, vhost="/", topology="shop")
    assert read.bindings == read.found == ()
    assert read.unproven == (Binding(source="e", destination="q"),)
    assert (read.adopted, read.retiring) == ({("queue", "a")}, {"t": 1})


def test_what_a_newer_version_wrote_is_not_to_be_deleted() -> None:
    with pytest.raises(UnreadableManifestError) as newer:
        from_json({**GOOD, "format": 3}, vhost="/", topology="shop")
    assert newer.value.hint == "a newer amqpflow wrote it: use that one"
    with pytest.raises(UnreadableManifestError) as damaged:
        from_json({**GOOD, "adopted": None}, vhost="/", topology="shop")
    assert damaged.value.hint.startswith("delete it")
