"""URLs as people paste them: what is around them is no part of them, what is wrong is said with its place."""

from __future__ import annotations

import pytest

from amqpflow.errors import UsageError
from amqpflow.rabbitmq.url import checked_management_url, checked_urls

URL = "amqp://user:secret@broker:5673/shop"


@pytest.mark.parametrize("around", ["\n", "\r\n", " ", "\t", "\ufeff", "\x00", " \n\n"])
def test_what_is_around_a_url_is_no_part_of_it(around: str) -> None:
    assert checked_urls(f"{around}{URL}{around}", "AMQPFLOW_URL") == (URL,)
    assert checked_management_url(f"{around}http://m:1{around}", "it") == ("http://m:1",)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("amqp://user:secret@ broker/shop", "AMQPFLOW_URL has a space at character 20"),
        (" amqp://user:secret@ broker/shop", "AMQPFLOW_URL has a space at character 21"),
        ("amqp://user:se\ncret@broker/shop", "AMQPFLOW_URL has a line break at character 15"),
        ("amqp://user:secret@broker/my\tshop\n", "AMQPFLOW_URL has a tab at character 29"),
        ("amqp://user:secret@broker/\u200bshop", "AMQPFLOW_URL has the character U+200B at character 27"),
        (f"{URL}, amqp://user:secret@other /shop", "AMQPFLOW_URL has a space at character 62"),
    ],
)
def test_white_space_inside_a_url_is_refused_with_its_place(url: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        checked_urls(url, "AMQPFLOW_URL")
    assert str(refused.value) == says
    assert "%20" in refused.value.hint
    assert "secret" not in refused.value.hint


def test_spaces_around_the_commas_between_nodes_are_allowed() -> None:
    assert checked_urls(f"{URL} ,\n {URL}", "it") == (URL, URL)


def test_an_upper_case_scheme_is_the_same_scheme() -> None:
    assert checked_urls("AMQPS://h/v", "it") == ("amqps://h/v",)
    assert checked_urls("AMQP://a/v,amqp://b/v", "it") == ("amqp://a/v", "amqp://b/v")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        (f'"{URL}"', "quotation marks"),
        (f"'{URL}'", "quotation marks"),
        ("http://broker:15672", "management URL"),
        ("https://broker", "management URL"),
        ("amqp://u:p/w@broker", "percent-encoded"),
    ],
)
def test_what_is_no_amqp_url_is_refused_with_what_to_do(url: str, hint: str) -> None:
    with pytest.raises(UsageError, match="not a URL of the form amqp://") as refused:
        checked_urls(url, "it")
    assert hint in refused.value.hint


def test_an_amqp_url_is_no_management_url() -> None:
    with pytest.raises(UsageError, match="not a URL of the form http://") as refused:
        checked_management_url(URL, "AMQPFLOW_MANAGEMENT_URL")
    assert "15672" in refused.value.hint


@pytest.mark.parametrize("empty", ["", " ", "\n", "\ufeff\n"])
def test_an_empty_url_is_called_empty(empty: str) -> None:
    with pytest.raises(UsageError, match="AMQPFLOW_URL is empty"):
        checked_urls(empty, "AMQPFLOW_URL")
