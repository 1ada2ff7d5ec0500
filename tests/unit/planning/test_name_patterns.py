"""Patterns for permissions match what they are for and nothing else, or say where they are wider."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqpflow.planning.policies.name_patterns import MAX_BYTES, NOTHING, pattern_of

NAMES = st.text("abA0.-_:@#,/+ ", min_size=1, max_size=12)


def matches(text: str, name: str) -> bool:
    return re.search(text, name) is not None


@settings(deadline=None)
@given(st.sets(NAMES, max_size=12), st.sets(NAMES, max_size=12))
def test_an_exact_pattern_matches_the_names_and_no_other(names: set[str], others: set[str]) -> None:
    text = pattern_of({name: [""] for name in names}, exact=True).text
    assert all(matches(text, name) for name in names)
    assert not [name for name in others - names if matches(text, name)]
    for name in names:
        for near in (f"{name}x", f"x{name}", name[:-1], f"{name}.retry"):
            assert matches(text, near) == (near in names)


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.sets(st.sampled_from(["", r"\.parking", r"\.retry\.[0-9a-z]+"]), min_size=1)))
def test_endings_follow_only_the_names_they_are_for(names: dict[str, set[str]]) -> None:
    text = pattern_of(names, exact=True).text
    plain = {"": "", r"\.parking": ".parking", r"\.retry\.[0-9a-z]+": ".retry.1m30s"}
    asked = {name + plain[ending] for name, endings in names.items() for ending in endings}
    for name in names:
        for ending in plain.values():
            assert matches(text, name + ending) == (name + ending in asked)


def test_no_name_is_no_permission() -> None:
    assert pattern_of({}).text == NOTHING


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["orders"], "^orders$"),
        (["orders.a", "orders.b"], r"^orders\.(a|b)$"),
        (["a", "b"], "^(a|b)$"),
        (["orders", "orders.a"], r"^(orders|orders\.a)$"),
    ],
)
def test_what_names_begin_with_is_written_once(names: list[str], text: str) -> None:
    assert pattern_of({name: [""] for name in names}).text == text


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 1000), st.sampled_from(["orders.{}", "{}.orders", "shop.eu.{}", "q{}", "a-{}.b"]))
def test_a_pattern_that_would_be_too_long_is_wider_and_says_so_or_does_not_fit(count: int, template: str) -> None:
    names = {template.format(f"queue{number:04d}") for number in range(count)}
    pattern = pattern_of({name: [""] for name in names})
    assert pattern.fits == (len(pattern.text) <= MAX_BYTES)
    assert not [name for name in list(names)[:50] if not matches(pattern.text, name)]
    assert bool(pattern.widened) == (pattern.fits and pattern.exact_bytes > MAX_BYTES)
    assert not matches(pattern.text, "somebody.elses")
