"""Variables expand inside values, after parsing, and never change the structure."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.topology.reading.variables import VariableError, expand
from tests.topology_files import HEAD, check, compiled, found

ENVIRON = {"HOST": "h", "EMPTY": "", "NUMBER": "5", "_X1": "x", "YAML": "a, b: [c]\n- d"}


@pytest.mark.parametrize(
    ("written", "expanded"),
    [
        ("${HOST}", "h"),
        ("a${HOST}b${_X1}", "ahbx"),
        ("${EMPTY}", ""),
        ("${EMPTY:-d}", "d"),
        ("${MISSING:-d}", "d"),
        ("${MISSING:-}", ""),
        ("${HOST:-d}", "h"),
        ("${HOST:?must be set}", "h"),
        ("$${HOST}", "${HOST}"),
        ("$$${HOST}", "$${HOST}"),
        ("$HOST", "$HOST"),
        ("$$", "$$"),
        ("${MISSING:-a:-b}", "a:-b"),
        ("costs $5", "costs $5"),
    ],
)
def test_variables_expand(written: str, expanded: str) -> None:
    assert expand(written, ENVIRON) == expanded


@pytest.mark.parametrize(
    ("written", "offset", "said"),
    [
        ("a${MISSING}", 1, "MISSING is not set"),
        ("${MISSING:?the virtual host}", 0, "MISSING is not set: the virtual host"),
        ("${EMPTY:?}", 0, "EMPTY is not set"),
        ("ab${HOST", 2, "without its }"),
        ("${}", 0, "is not a variable"),
        ("${1}", 0, "is not a variable"),
        ("${HOST-d}", 0, "is not a variable"),
        ("${HOST:+d}", 0, "is not a variable"),
        ("${A:-${B}}", 0, "nested"),
    ],
)
def test_what_cannot_be_expanded_is_said(written: str, offset: int, said: str) -> None:
    with pytest.raises(VariableError, match="(?s).*" + said.replace("}", r"\}")) as caught:
        expand(written, ENVIRON)
    assert caught.value.offset == offset


def test_a_value_of_a_variable_is_never_read_as_yaml() -> None:
    checked = check(HEAD + "vhost: ${YAML}\n", ENVIRON)
    assert [each.message for each in checked.errors] == ["the virtual host's name holds a control character"]
    assert compiled("vhost: ${V}", {"V": "{a: b} # c"}).vhost == "{a: b} # c"


def test_a_plain_value_gets_its_type_after_expansion() -> None:
    text = """
    defaults: {retry: none}
    queues:
      q:
        limits: {max_length: "${N}"}
        delivery_limit: ${N}
    """
    assert found(HEAD + "queues: {q: {retry: none, delivery_limit: '${N}'}}\n", {"N": "5"}) == ["3:43 T103"]
    assert compiled(text.replace('"${N}"', "7"), {"N": "5"}).desired.queues["q"].arguments["x-delivery-limit"] == 5


def test_digits_from_a_variable_are_text_where_text_is_wanted() -> None:
    assert compiled("vhost: ${V}\nqueues: {}", {"V": "123"}).vhost == "123"
    assert found(HEAD + "vhost: 123\n") == ["3:8 T103"]


def test_an_empty_variable_is_empty_text_and_not_nothing() -> None:
    assert "vhost is empty" in str(check(HEAD + "vhost: ${EMPTY}\n", ENVIRON).errors[0])


def test_an_undefined_variable_is_an_error_where_it_stands() -> None:
    assert found(HEAD + "vhost: a${A}\nname2: ${B}\n") == ["3:9 T009", "4:1 T101", "4:8 T009"]
    assert found(HEAD + "vhost: 'a${A}'\n") == ["3:8 T009"]
    # and it is the only one: nothing is said of the value that could not be had
    assert found(HEAD + "defaults: {retry: '${R}'}\nqueues: {q: {}}\n") == ["3:19 T009"]


def test_keys_are_not_expanded() -> None:
    assert "3:11 T009" in found(HEAD + "queues: { ${Q}: {retry: none}}\n".replace("{ ${Q}", "{ '${Q}'"))


@given(st.text(max_size=200))
def test_any_text_expands_or_is_refused_at_a_place_in_it(text: str) -> None:
    with suppress(VariableError):
        expand(text, ENVIRON)


@given(st.text(alphabet="ab ${}", max_size=40))
def test_text_without_variables_stays_itself(text: str) -> None:
    if "${" not in text:
        assert expand(text, {}) == text
