"""Bodies for people: nothing is changed by indenting, and nothing acts on the terminal."""

from __future__ import annotations

import json
import zlib
from typing import Any
from xml.etree.ElementTree import Element, fromstring, tostring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.cli.render.body import SHOWN_BYTES, body_lines
from amqpflow.cli.render.markup import pretty_xml

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\{}[],: \n\u202e', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"{,:\\', max_size=3), inner),
    max_leaves=15,
)


def shown(body: bytes, content_type: str | None = None, encoding: str | None = None) -> list[str]:
    return list(body_lines(body, content_type, encoding))


@given(value=st.lists(VALUES, max_size=4) | st.dictionaries(st.text(max_size=3), VALUES), tight=st.booleans())
def test_json_is_indented_as_json_dumps_would(value: Any, tight: bool) -> None:
    body = json.dumps(value, separators=(",", ":") if tight else None).encode()
    assert "\n".join(shown(body)[1:]) == json.dumps(value, indent=2)


@given(body=st.binary(max_size=200), encoding=st.sampled_from([None, "gzip", "deflate", "\x1b"]))
def test_any_body_is_harmless(body: bytes, encoding: str | None) -> None:
    for line in shown(body, "text/\u202eplain", encoding):
        assert all(character >= " " and character not in "\x7f\u202e\x9b" for character in line.replace("\t", ""))


def test_duplicate_keys_and_large_numbers_stay() -> None:
    assert shown(b'{"a": 1e999, "a": 0.10}')[1:] == ["{", '  "a": 1e999,', '  "a": 0.10', "}"]


def test_what_is_cut_is_counted_and_no_character_is_halved() -> None:
    body = "ä".encode() * SHOWN_BYTES
    lines = shown(b"x" + body)
    assert lines[-1] == f"... {len(body) + 1 - SHOWN_BYTES} bytes more; -o json has them all"
    assert set(lines[1]) == {"x", "ä"}


def test_a_body_that_is_not_what_its_encoding_says() -> None:
    assert "said to be gzip but is not" in shown(b"plain", None, "gzip")[0]
    assert shown(zlib.compress(b"[1]"), None, "deflate")[1:] == ["[", "  1", "]"]


def test_json_nested_too_deep_is_text() -> None:
    assert shown(b"[" * 5000)[1] == "[" * 5000


def test_xml_is_indented_and_shown_as_it_was_written() -> None:
    body = b"""<?xml version="1.0" encoding="utf-16"?><order id="1"><!-- c --><line sku="a&amp;b">2 &lt; 3</line>
        <none/><text><![CDATA[<a> & ]]></text><m>te<b>x</b>t</m><e></e></order>"""
    assert shown(body, "application/xml")[1:] == [
        '<?xml version="1.0" encoding="utf-16"?>',
        '<order id="1">',
        "  <!-- c -->",
        '  <line sku="a&amp;b">2 &lt; 3</line>',
        "  <none/>",
        "  <text><![CDATA[<a> & ]]></text>",
        "  <m>",
        "    te",
        "    <b>x</b>",
        "    t",
        "  </m>",
        "  <e></e>",
        "</order>",
    ]


BOMB = "<!DOCTYPE a [" + "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12)) + "]><a>&e11;</a>"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(BOMB, id="entities without measure"),
        pytest.param('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>', id="a file"),
        pytest.param('<!DOCTYPE a SYSTEM "http://192.0.2.1/a.dtd"><a><b/></a>', id="another host"),
        pytest.param("<a><b>" * 5000, id="cut short"),
        pytest.param("<a>" * 5000 + "</a>" * 5000, id="nested too deeply"),
        pytest.param("<p>never closed<br></p>", id="HTML"),
    ],
)
def test_xml_that_is_none_or_declares_something_is_text(body: str) -> None:
    assert shown(body.encode(), "application/xml")[1:] == [body]


@given(st.recursive(st.text(alphabet="ab&;<>[]! \n\u202e", max_size=5), lambda inner: st.lists(inner, max_size=4)))
def test_xml_loses_no_element_and_no_text(tree: Any) -> None:
    def element(node: Any) -> Element:
        made = Element("x")
        made.text = node if isinstance(node, str) else None
        made.extend(map(element, node if isinstance(node, list) else ()))
        return made

    def outline(node: Element) -> Any:
        return (node.text or "").split(), [outline(each) for each in node]

    pretty = pretty_xml(tostring(element(tree), encoding="unicode"))
    assert pretty is not None
    assert outline(fromstring("\n".join(pretty))) == outline(element(tree))
