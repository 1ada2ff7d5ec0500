"""The two forms in which tests run a command print the same, and the one in this process leaves nothing behind."""

from __future__ import annotations

import contextvars
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from amqpflow.cli import main as cli
from tests.commands import Result, environment, run, start

FILE = "version: 1\nname: shop\nqueues: {orders: {retry: none}, o\u0308: {}}\n"
NOBODY = "amqp://app:s3cret@127.0.0.1:1/"

kept = contextvars.ContextVar("kept", default="before")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("aply",),
        ("plan", "--help"),
        ("validate", "shop.yaml"),
        ("graph", "shop.yaml", "--out", "no/where"),
        ("permissions", "missing.yaml", "-o", "json"),
        ("status", "shop.yaml", "--url", NOBODY),
        ("replay", "--history", "--journal", "."),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_both_forms_print_the_same(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "shop.yaml").write_text(FILE)
    for width in ("60", "120"):
        env = environment(COLUMNS=width)
        assert run(*arguments, env=env, cwd=tmp_path) == start(*arguments, env=env, cwd=tmp_path)


@contextmanager
def a_command(patch: pytest.MonkeyPatch, name: str, body: click.Command) -> Iterator[None]:
    with patch.context() as own:
        own.setitem(cli.amqpflow.commands, name, body)
        own.setattr(cli.amqpflow, "get_command", lambda _, wanted: body if wanted == name else None)
        yield


def test_what_a_command_changes_in_its_process_is_as_before_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def meddle() -> int:
        kept.set("meddled")
        os.environ["MEDDLED"] = "1"
        os.chdir(tmp_path)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        logging.getLogger("amqpflow").addHandler(logging.NullHandler())
        logging.getLogger("new").setLevel(logging.DEBUG)
        logging.basicConfig(level=logging.DEBUG, format="%(message)s", stream=sys.stdout, force=True)
        os.write(1, b"by the descriptor, ")
        print("by the stream", end="")
        logging.getLogger("amqpflow").debug(", by a log")
        return 7

    def state() -> tuple[object, ...]:
        loggers = [logging.getLogger(name) for name in ("", "amqpflow", "new")]
        return (
            dict(os.environ), Path.cwd(), kept.get(), signal.getsignal(signal.SIGTERM), sys.stdin, sys.stdout,
            sys.stderr, [(each.level, list(each.handlers)) for each in loggers], os.fstat(1).st_ino, os.fstat(2).st_ino,
        )  # fmt: skip

    before = state()
    with a_command(monkeypatch, "meddle", meddle):
        done = run("meddle")
    assert done == Result(7, "by the descriptor, by the stream, by a log\n", "")
    assert state() == before


def test_what_is_logged_without_a_handler_is_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def warn() -> None:
        logging.getLogger("amqpflow").warning("mind the gap")

    with a_command(monkeypatch, "warn", warn):
        assert run("warn").err == "mind the gap\n"


def test_an_error_that_no_command_expects_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def fail() -> None:
        raise ZeroDivisionError

    with a_command(monkeypatch, "fail", fail), pytest.raises(ZeroDivisionError):
        run("fail")


def test_in_a_thread_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def in_a_thread() -> None:
        try:
            run("--help")
        except AssertionError as error:
            said.append(str(error))

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert "use start()" in said[0]
