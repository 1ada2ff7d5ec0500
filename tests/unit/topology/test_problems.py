"""Collecting problems: sorted, each once, and not without end."""

from __future__ import annotations

import pytest

from amqpflow.model.diagnostic import Place, Severity
from amqpflow.topology.language.codes import Code
from amqpflow.topology.reading.problems import COMPARED_CHARACTERS, MOST, Problems


def at(line: int) -> Place:
    return Place(file="f", line=line)


def test_problems_are_sorted_by_place_and_each_is_kept_once() -> None:
    problems = Problems("f")
    problems.warning(Code.UNUSED_POLICY, at(9), "late")
    problems.error(Code.BAD_NAME, at(2), "early")
    problems.error(Code.BAD_NAME, at(2), "early", "said again")
    problems.error(Code.BAD_NAME, at(10), "last")
    assert [each.message for each in problems.sorted()] == ["early", "late", "last"]


def test_too_many_problems_are_counted_by_severity() -> None:
    problems = Problems("f")
    for line in range(MOST + 5):
        problems.warning(Code.UNUSED_POLICY, at(line + 1), "w")
    assert not problems.fatal
    last = problems.sorted()[-1]
    assert (last.code, last.severity, last.message) == ("T010", Severity.WARNING, "5 more warnings are not shown")
    problems.error(Code.BAD_NAME, at(1), "an error is never crowded out by warnings")
    assert problems.fatal


def test_the_nearest_word_is_named() -> None:
    problems = Problems("f")
    assert problems.nearest("standart", ["standard", "patient"]) == "did you mean standard?"
    assert problems.nearest("MaxLength", ["max_length", "overflow"]) == "did you mean max_length?"
    assert problems.nearest("max-length", ["overflow", "max_length"]) == "did you mean max_length?"
    assert problems.nearest("zzz", ["b", "a", "a"]) == "known: a, b"
    assert problems.nearest("zzz", []) == ""
    assert problems.nearest("zzz", [f"word{i}" for i in range(21)]) == ""


def test_looking_for_the_nearest_word_ends_when_a_file_has_used_it_up() -> None:
    problems = Problems("f")
    known = [f"exchange.{i:06}" for i in range(COMPARED_CHARACTERS // 2 // 15 // 9)]
    assert problems.nearest("exchnge.5", known)
    assert problems.nearest("exchnge.6", known)
    assert problems.nearest("exchnge.7", known) == ""


def test_what_long_words_cost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def counted(word: str, words: list[str], n: int) -> list[str]:
        compared.append(len(word) * sum(map(len, words)))
        return []

    monkeypatch.setattr("amqpflow.topology.reading.problems.get_close_matches", counted)
    problems = Problems("f")
    known = ["e" * 100 + str(number) for number in range(100)]
    for number in range(3000):
        problems.nearest("e" * 99 + str(number), known)
    assert compared
    assert sum(compared) <= COMPARED_CHARACTERS
