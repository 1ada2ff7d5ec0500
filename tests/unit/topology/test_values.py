"""Single values: what is read from them, and what is said of those that do not fit."""

from __future__ import annotations

import pytest

from tests.topology_files import HEAD, check, compiled, found


def said(text: str) -> tuple[str, str]:
    """Message and hint of the one error in a file."""
    (problem,) = check(text).errors
    return problem.message, problem.hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("version: 2\nname: a\n", "version 2 of the topology language is not supported", "write version: 1"),
        ("version: '1'\nname: a\n", "version is a whole number, found the text '1'", "remove the quotes"),
        ("name: a\n", "the file has no version", "for example version: 1"),
        ("version: 1\n", "the file has no name", "for example name: orders"),
        (HEAD + "vhost:\n", "vhost is a virtual host, found nothing", ""),
        (HEAD + "vhost: 5\n", "vhost is a virtual host, found the number 5", 'quote it: "5"'),
        (HEAD + "vhost: true\n", "vhost is a virtual host, found true", 'quote it: "true"'),
        (HEAD + "setings: policies\n", "unknown key 'setings' in the file", "did you mean settings?"),
        (HEAD + "settings: argument\n", "settings is one of policies, arguments", "did you mean arguments?"),
        (
            HEAD + "exchanges: {e: {type: topic, durable: no}}\n",
            "durable is true or false, found the text 'no'",
            "yes, no, on and off are text in YAML 1.2",
        ),
        (
            HEAD + "defaults: {queue: {type: stream}}\n",
            "type is one of quorum, classic, found the text 'stream'",
            "a work queue is classic or quorum",
        ),
        (
            HEAD + "defaults: {queue: {consumer_timeout: 30}}\n",
            "consumer_timeout: 30 has no unit: write 30s for seconds or 30ms for milliseconds",
            "",
        ),
        (
            HEAD + "defaults: {queue: {limits: {max_length_bytes: 5000}}}\n",
            "max_length_bytes: 5000 has no unit",
            "",
        ),
        (
            HEAD + "retry_policies: {p: {delays: [4000d]}}\ndefaults: {retry: p}\n",
            "delays is at most 3650d (315360000000 ms), RabbitMQ's longest; found 4000d",
            "",
        ),
        (
            HEAD + "retry_policies: {p: {delays: [1s], jitter: 10}}\ndefaults: {retry: p}\n",
            "jitter is a percentage, found the number 10",
            "write 10%",
        ),
        (HEAD + "queues: {q: {retry: {delays: [5s]}}}\n", "retry is a name of a retry policy, found a mapping", ""),
        (HEAD + "queues: {q: {retry: none, limits: 5}}\n", "limits is a mapping, found the number 5", "its keys are"),
        (
            HEAD + "retry_policies: {p: {delays: 5s}}\ndefaults: {retry: p}\n",
            "delays is a list, found the text '5s'",
            "write [5s]",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_what_to_write(text: str, message: str, hint: str) -> None:
    found_message, found_hint = said(text)
    assert found_message.startswith(message)
    assert found_hint.startswith(hint)
    assert bool(hint) == bool(found_hint)


def test_text_of_a_file_is_cut_in_messages() -> None:
    message, _ = said(HEAD + "settings: " + "x" * 5000 + "\n")
    assert len(message) < 300


def test_sections_without_content_are_as_if_they_were_not_there() -> None:
    text = HEAD + "naming:\ndefaults:\nretry_policies:\nexchanges:\nqueues:\n"
    assert found(text) == []
    assert found(HEAD + "defaults: {retry: none}\nqueues:\n  a:\n    limits:\n    parking:\n    arguments:\n") == []


def test_arguments_keep_their_types() -> None:
    topology = compiled("""
        defaults: {retry: none}
        queues:
          q:
            arguments: {a: 1, b: "1", c: true, d: [1, x, {y: 2}], e: {f: 1.5}, g: ""}
    """)
    arguments = topology.desired.queues["q"].arguments
    assert {key: arguments[key] for key in "abcdeg"} == {
        "a": 1,
        "b": "1",
        "c": True,
        "d": [1, "x", {"y": 2}],
        "e": {"f": 1.5},
        "g": "",
    }
    assert arguments["c"] is True
