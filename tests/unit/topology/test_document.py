"""YAML: types, positions, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqpflow.topology.reading import document
from amqpflow.topology.reading.document import MAX_DEPTH, MAX_NODES, decode, parse_document
from amqpflow.topology.reading.nodes import ListNode, MappingNode
from amqpflow.topology.reading.problems import Problems
from tests.topology_files import HEAD, check, found, parse


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        (".5", 0.5),
        (".", "."),
        ("-x", "-x"),
        (".inf", ".inf"),
        ("1e400", "1e400"),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("", None),
        ("10", 10),
        ("-7", -7),
        ("+3", 3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("5s", "5s"),
        ("'10'", "10"),
        ('"true"', "true"),
        ("|\n  10", "10\n"),
        ("9" * 30, "9" * 30),
    ],
)
def test_plain_scalars_have_the_few_types_of_yaml_1_2(written: str, value: Any) -> None:
    assert parse(f"a: {written}\n") == {"a": value}


def test_both_parsers_of_pyyaml_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    text = "a: [1, 'x', {b: ~}]\nc: |\n  text\nd: &x 5\ne: *x\n"
    fast = parse(text)
    monkeypatch.setattr(document, "_Loader", yaml.SafeLoader)
    assert parse(text) == fast
    problems = Problems("f")
    parse_document("a: 1\nb\x01: 2\n", problems, {})
    parse_document("a:\n\tb: 2\n", problems, {})
    assert [(str(each.place), each.code) for each in problems.sorted()] == [("f:2:1", "T004"), ("f:2:2", "T003")]


def test_places_are_those_an_editor_shows() -> None:
    problems = Problems("f")
    root = parse_document("a:\n  - é: {b: 1}\n    'c': \"x\"\n", problems, {})
    assert isinstance(root, MappingNode)
    inner = root.entries[0].node
    assert isinstance(inner, ListNode)
    item = inner.items[0]
    assert isinstance(item, MappingNode)
    assert [(e.key, e.place.line, e.place.column) for e in item.entries] == [("é", 2, 5), ("c", 3, 5)]
    assert [(e.node.place.line, e.node.place.column) for e in item.entries] == [(2, 8), (3, 10)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", ["1:1 T008"], id="empty"),
        pytest.param("# only a comment\n", ["1:1 T008"], id="comment"),
        pytest.param("---\n...\n", ["1:1 T008"], id="empty document"),
        pytest.param("null\n", ["1:1 T008"], id="null"),
        pytest.param("- a\n- b\n", ["1:1 T008"], id="list at the top"),
        pytest.param("\n  hello\n", ["2:3 T008"], id="scalar at the top"),
        pytest.param(HEAD + "vhost: a\nvhost: b\n", ["4:1 T005"], id="duplicate key"),
        pytest.param(HEAD + "queues:\n  q: {retry: none, retry: none}\n", ["4:20 T005"], id="duplicate inside"),
        pytest.param(HEAD + "---\n" + HEAD, ["3:1 T006"], id="second document"),
        pytest.param(HEAD + "vhost: !!str x\n", ["3:8 T006"], id="tag"),
        pytest.param(HEAD + "queues: !!python/object/apply:os.system ['id']\n", ["3:9 T006", "3:9 T103"], id="object"),
        pytest.param(HEAD + "vhost: ! x\n", ["3:8 T006"], id="bare tag"),
        pytest.param(HEAD + "queues: {q: {<<: {retry: none}}}\n", ["3:10 T305", "3:14 T006"], id="merge key"),
        pytest.param(HEAD + "? [a]\n: b\n", ["3:3 T006"], id="list as key"),
        pytest.param(HEAD + "queues:\n\tq: {}\n", ["4:1 T004"], id="tab"),
        pytest.param(HEAD + "queues: *q\n", ["3:9 T004"], id="alias of nothing"),
        pytest.param(HEAD + "queues: &q {q: *q}\n", ["3:16 T007"], id="alias of itself"),
        pytest.param(HEAD + "vhost: {a: b\n", ["4:1 T004"], id="not closed"),
        pytest.param(HEAD + "vhost: @x\n", ["3:8 T004"], id="reserved character"),
        pytest.param(HEAD + "vhost: a\x01b\n", ["3:9 T003"], id="control character"),
        pytest.param(HEAD.encode() + b"vhost: caf\xe9\n", ["3:11 T003"], id="latin-1"),
        pytest.param(HEAD.encode("utf-16"), ["1:1 T003"], id="UTF-16"),
        pytest.param(HEAD.encode("utf-16-be"), ["1:1 T003"], id="UTF-16 without a mark"),
        pytest.param(b"\x7fELF\x02\x01\0\0", ["1:1 T003"], id="binary"),
    ],
)
def test_what_is_no_topology_is_refused_at_its_place(text: str | bytes, expected: list[str]) -> None:
    assert found(text) == expected


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert found(b"\xef\xbb\xbf" + HEAD.encode()) == []
    assert found(b"\xef\xbb\xbf" + b"nope: 1\nname: shop\nversion: 1\n") == ["1:1 T101"]
    assert found(b"\xef\xbb\xbf" + b"vhost: a, b: c\n") == ["1:12 T004"]
    problems = Problems("f")
    assert decode(b"\xef\xbb\xbfname: shop", problems) == "name: shop"


def test_the_messages_say_what_to_do() -> None:
    said = [
        *check(HEAD + "queues:\n\tq: {}\n").diagnostics,
        *check(HEAD + "vhost: @x\n").diagnostics,
        *check(HEAD + "defaults: {retry: ${R}}\n").diagnostics,
        *check(HEAD + "vhost: !secret x\n").diagnostics,
    ]
    assert [each.hint for each in said] == [
        "replace the tabs of this line by spaces",
        "quote a value that starts with this character",
        'a value with ${...} inside { } or [ ] must be quoted: "${NAME}"',
        'remove it; quote a value to make it text, as in "10"',
    ]


def test_plain_aliases_are_allowed() -> None:
    text = HEAD + "queues:\n  a: &same {retry: none}\n  b: *same\n"
    checked = check(text)
    assert not checked.diagnostics
    assert list(checked.topologies[0].routes) == ["a", "b"]


def test_nesting_is_bounded() -> None:
    assert found("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)) != [f"1:{MAX_DEPTH + 3} T007"]
    for opened in ("[", "{a: ", "- "):
        assert "T007" in found(opened * 100_000)[0]
    assert "T006" in found("? " * 100_000)[0]


def test_aliases_cannot_nest_deeper_than_lists() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 60)]
    assert [each.split()[1] for each in found("\n".join(lines))] == ["T007"]


DEAD_LETTER = "{x-dead-letter-exchange: e}"

BILLION_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BILLION_LAUGHS, id="billion laughs"),
        pytest.param(HEAD + "# " + "x" * 10_000_000, id="10 MB"),
        pytest.param("[" * 1_000_000, id="deep lists"),
        pytest.param("{a: " * 250_000, id="deep mappings"),
        pytest.param("\n".join(" " * i + "a:" for i in range(1400)), id="deep blocks"),
        pytest.param(HEAD + "".join(f"k{i}: 1\n" for i in range(90_000)), id="many unknown keys"),
        pytest.param(HEAD + "a: 1\n" * 90_000, id="one key very often"),
        pytest.param(HEAD + "k" * 900_000 + ": 1\n", id="long key"),
        pytest.param(HEAD + "vhost: " + "9" * 900_000 + "\n", id="long number"),
        pytest.param(HEAD + "retry_policies: {p: {delays: [" + "9" * 900_000 + "s]}}\n", id="long duration"),
        pytest.param(HEAD + 'vhost: "' + "${V:-x}" * 140_000 + '"\n', id="many variables"),
        pytest.param(
            HEAD + "retry_policies: {p: {backoff: {initial: 1s, multiplier: 1.01, retries: 1000}, jitter: 10%}}\n"
            "defaults: {retry: p}\nqueues:\n" + "".join(f"  q{i}:\n" for i in range(30_000)),
            id="many retry queues",
        ),
        pytest.param(
            HEAD + "retry_policies:\n" + "".join(
                f" p{i}: {{backoff: {{initial: 1s, multiplier: 1.23456789, retries: 1000, max: 9d}}}}\n"
                for i in range(10_000)
            ),
            id="many schedules",
        ),
        pytest.param(
            HEAD + "exchanges:\n" + "".join(f"  exchange.{i}: {{type: topic}}\n" for i in range(9_000))
            + "queues:\n" + "".join(f"  q{i}: {{bindings: [{{exchange: exchnge.{i}}}]}}\n" for i in range(5_000)),
            id="many wrong names",
        ),
        pytest.param(
            HEAD + "queues:\n" + "".join(f"  q{i}: {{parking: {{queue: q{i + 1}}}}}\n" for i in range(9_000))
            + "  q9000: {parking: {queue: q0}}\n",
            id="a cycle through all queues",
        ),
        pytest.param(
            HEAD + "exchanges: {e: {type: fanout}}\nqueues:\n"
            + "".join(f"  q{i}: {{bindings: [{{exchange: e}}], arguments: {DEAD_LETTER}}}\n" for i in range(7_000)),
            id="everything dead-letters to everything",
        ),
        pytest.param(bytes(range(256)) * 4000, id="binary"),
    ],
)  # fmt: skip
def test_hostile_files_end_soon_with_an_error(text: str | bytes) -> None:
    """A second is what each may take; the limit here is wider, since the machine has other work."""
    begin = time.process_time()
    checked = check(text)
    assert time.process_time() - begin < 3
    assert checked.errors
    assert len(checked.diagnostics) <= 402
    assert not checked.topologies


def test_a_full_file_is_counted_with_its_aliases() -> None:
    text = (
        HEAD + "queues: {q: {arguments: {a: &a [" + "x, " * 1000 + "], b: [" + "*a, " * (MAX_NODES // 1000) + "]}}}\n"
    )
    assert [each.split()[1] for each in found(text)] == ["T007"]


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_topology_or_has_problems(text: str) -> None:
    checked = check(text.encode("utf-8", "surrogatepass"))
    assert bool(checked.topologies) != bool(checked.errors)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_topology_or_have_problems(data: bytes) -> None:
    problems = Problems("f")
    text = decode(data, problems)
    assert (text is None) == problems.fatal
    check(data)


PIECES = [
    *("a: ", "- ", "[", "]", "{", "}", "&x ", "*x ", "\n", "  ", "\t", "!t ", "<<: ", "${V}", "${", "'", '"', "|"),
    *("x", ":", "# c", "--- ", "...", "%YAML 1.2", "? ", "é", "\ufeff", "\x85", "queues:", "name: "),
]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@settings(max_examples=500, deadline=None)
def test_anything_that_looks_like_yaml_is_a_topology_or_has_problems(text: str) -> None:
    checked = check(HEAD + text, {"V": "1"})
    assert bool(checked.topologies) != bool(checked.errors)
