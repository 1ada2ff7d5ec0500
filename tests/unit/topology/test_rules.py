"""Every code, by files that have it: found where it stands, and nothing else is found."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from amqpflow.topology.language.codes import Code
from tests.topology_files import check
from tests.unit.topology.samples import SAMPLES

ELSEWHERE = {
    Code.UNREADABLE: "tests/cli/test_validate.py",
    Code.TOO_LARGE: "test_document.py",
    Code.NOT_TEXT: "test_document.py",
    Code.NOT_A_MAPPING: "test_document.py",
    Code.TOO_MANY_PROBLEMS: "test_problems.py",
    Code.UNKNOWN_VERSION: "test_values.py",
    Code.NAME_COLLISION: "test_names.py",
    Code.SECOND_OWNER: "test_across_files.py",
    Code.SAME_TOPOLOGY: "test_across_files.py",
    Code.UNDEFINED_QUEUE: "test_across_files.py",
    Code.DEAD_LETTER_CYCLE: "test_dead_letters.py",
}

#: what is wrong with a single value: the message says what it may be
WITHOUT_A_HINT = {
    Code.SYNTAX,
    Code.TOO_COMPLEX,
    Code.WRONG_TYPE,
    Code.OUT_OF_RANGE,
    Code.NOT_A_DURATION,
    Code.NOT_A_SIZE,
    Code.BAD_NAME,
    Code.NAME_TOO_LONG,
    Code.RESERVED_NAME,
    Code.ROUTING_KEY_TOO_LONG,
    Code.ARGUMENT_VALUE,
}


def whole(sample: str) -> str:
    text = dedent(sample).lstrip("\n")
    defaults = "" if "defaults:" in text else "defaults: {retry: none}\n"
    return f"version: 1\nname: shop\n{defaults}{text}"


CASES = [
    pytest.param(sample, id=f"{code.name}-{number}")
    for code, samples in SAMPLES.items()
    if code is not Code.NAME_COLLISION
    for number, sample in enumerate(samples)
]


@pytest.mark.parametrize("sample", CASES)
def test_a_sample_has_the_problems_it_says_and_no_others(sample: str) -> None:
    text = whole(sample)
    expected: list[tuple[int, int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        said = re.search(r"# ((?:T\d+:\d+ ?)+)$", line)
        for each in said[1].split() if said else ():
            code, _, column = each.partition(":")
            expected.append((number, int(column), code))
    diagnostics = check(text).diagnostics
    found = sorted((each.place.line, each.place.column, each.code) for each in diagnostics)
    assert found == sorted(expected), "\n".join(map(str, diagnostics))
    unhinted = [str(each) for each in diagnostics if not each.hint and Code(each.code) not in WITHOUT_A_HINT]
    assert unhinted == [], "a hint says what to write instead"


def test_the_tests_of_codes_without_a_sample_are_where_they_are_said_to_be() -> None:
    here, root = Path(__file__).parent, Path(__file__).parents[3]
    assert [each for each in ELSEWHERE.values() if not ((root if "/" in each else here) / each).is_file()] == []


def test_every_code_has_a_sample_or_a_test_of_its_own() -> None:
    assert set(SAMPLES) | set(ELSEWHERE) == set(Code)


def test_every_sample_has_its_own_code() -> None:
    for code, samples in SAMPLES.items():
        if code is not Code.NAME_COLLISION:
            assert all(code.value in sample for sample in samples), code


def test_codes_are_unique_and_of_one_form() -> None:
    assert len({code.value for code in Code}) == len(Code)
    assert all(re.fullmatch(r"T[0-6]\d\d", code.value) for code in Code)


def test_a_problem_in_the_defaults_is_said_once_and_there() -> None:
    text = whole("defaults: {retry: none, queue: {max_priority: 40}}\nqueues: {a: {}, b: {}, c: {max_priority: 50}}\n")
    problems = check(text).diagnostics
    assert [(each.place.line, each.message.partition(":")[0]) for each in problems] == [
        (3, "the defaults"),
        (4, "queue c"),
    ]


def test_a_broken_part_is_still_known_by_its_name() -> None:
    text = whole("retry_policies: {p: 5}\nexchanges: {e: 5}\nqueues: {q: {retry: p, bindings: [{exchange: e}]}}\n")
    assert [each.code for each in check(text).diagnostics] == ["T103", "T103"]


def test_nothing_is_concluded_from_a_value_that_was_refused() -> None:
    """A mistyped word is one problem, and not also all that would follow from the default in its place."""
    text = whole(
        "retry_policies: {p: {engine: nativ, delay: {min: 1s, max: 5s}, retries: 5}}\n"
        "queues:\n"
        "  a: {type: clasic, limits: {overflow: drop-head}, max_priority: 100, arguments: {x-queue-version: 2}}\n"
        "  b: {type: quorm, delivery_limit: 5, retry: p}\n"
        "  c: {retry: 5, parking: {queue: [x]}, external: maybe, owner: o}\n"
    )
    assert [each.code for each in check(text).diagnostics] == ["T105", "T105", "T105", "T103", "T103", "T103"]
