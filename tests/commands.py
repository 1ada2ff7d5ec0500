"""Run a command as its user does: in this process, which takes milliseconds, or in a process of its own.

A process of its own is for tests of what belongs to processes: signals, terminals, pipes, the exit, the time or the
modules that a start takes. Both forms get the same environment, no terminal and an empty standard input, and refuse
output that holds a traceback.
"""

from __future__ import annotations

import contextvars
import gc
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from amqpflow.cli.main import main
from amqpflow.rabbitmq.address import BrokerAddress

AMQPFLOW = (sys.executable, "-m", "amqpflow")
TEMPORARY = tempfile.gettempdir()  # also for tests that take it away


@dataclass(frozen=True)
class Result:
    """The exit code of a command, and its standard output and standard error."""

    code: int
    out: str
    err: str

    def says(self, *words: str) -> bool:
        """Return whether standard error has all of these words."""
        return all(word in self.err for word in words)


def environment(address: BrokerAddress | None = None, **more: str) -> dict[str, str]:
    """Return this process's environment without a broker in it, with the virtual host of the test and a fixed width."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AMQPFLOW_", "RABBITMQ_", "CLOUDAMQP_"))}
    vhost = {} if address is None else {"AMQPFLOW_VHOST": address.vhost}
    return {**clean, **vhost, "COLUMNS": "120", **more}


def run(*arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Result:
    """Run `amqpflow ARGUMENTS` in this process.

    The command finds what it finds in a process of its own: standard streams that are files, its environment and
    directory, the main thread, no event loop, and loggers without a handler. Afterwards all of it is as it was before.
    An exception that would end the process with a traceback fails the test.
    """
    assert threading.current_thread() is threading.main_thread(), "signals are handled in the main thread: use start()"
    with tempfile.TemporaryFile(dir=TEMPORARY) as out, tempfile.TemporaryFile(dir=TEMPORARY) as err:
        with (
            _loggers_as_at_the_start(),
            _signal_handlers(),
            _environment(environment() if env is None else dict(env), cwd),
            _only_new_garbage(),
            _standard_streams(out, err),
        ):
            code = _exit_code([*map(str, arguments)])
            gc.collect()  # a task's exception that was never looked at is reported while its output is ours
        return _checked(code, _text(out), _text(err))


def _exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        contextvars.copy_context().run(main, arguments)
    code = end.value.code or 0
    assert isinstance(code, int)
    return code


def start(*arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Result:
    """Run `amqpflow ARGUMENTS` in a process of its own, from any thread, and wait for its end."""
    done = subprocess.run(
        [*AMQPFLOW, *map(str, arguments)],
        env=dict(environment() if env is None else env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return _checked(done.returncode, done.stdout, done.stderr)


def _checked(code: int, out: str, err: str) -> Result:
    for text in (out, err):
        assert "Traceback" not in text, text
    return Result(code, out, err)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode().replace("\r\n", "\n").replace("\r", "\n")  # as text=True reads a pipe


@contextmanager
def _signal_handlers() -> Iterator[None]:
    """Put the handlers back that a command leaves behind because its process is about to end."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _standard_streams(out: IO[bytes], err: IO[bytes]) -> Iterator[None]:
    """Lead the descriptors 0 to 2 and Python's streams to /dev/null and these files."""
    ours = sys.stdin, sys.stdout, sys.stderr
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in range(3)]
    try:
        with Path(os.devnull).open("rb") as nothing:
            for descriptor, stream in enumerate((nothing, out, err)):
                os.dup2(stream.fileno(), descriptor)
        with (
            open(0, encoding="utf-8", closefd=False) as sys.stdin,
            open(1, "w", encoding="utf-8", closefd=False) as sys.stdout,
            open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False) as sys.stderr,
        ):
            yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = ours
        for descriptor, copy in enumerate(kept):
            os.dup2(copy, descriptor)
            os.close(copy)


@contextmanager
def _environment(env: Mapping[str, str], cwd: Path | None) -> Iterator[None]:
    before, directory = dict(os.environ), Path.cwd()
    os.environ.clear()
    os.environ.update(env)
    try:
        if cwd is not None:
            os.chdir(cwd)
        yield
    finally:
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _loggers_as_at_the_start() -> Iterator[None]:
    """Take away the handlers that pytest or an earlier command added, and afterwards those that this command adds.

    What is logged without a handler goes to standard error, where tests see it.
    """

    def loggers() -> list[logging.Logger]:
        known = list(logging.root.manager.loggerDict.values())
        return [logging.root, *(each for each in known if isinstance(each, logging.Logger))]

    before = {each: (each.handlers, each.level, each.propagate, each.disabled) for each in loggers()}
    for each in before:
        each.handlers = []
    try:
        yield
    finally:
        for each in loggers():
            state = before.get(each, ([], logging.NOTSET, True, False))
            each.handlers, level, each.propagate, each.disabled = state
            each.setLevel(level)


@contextmanager
def _only_new_garbage() -> Iterator[None]:
    """Let a collection look at what the command made alone, which takes a millisecond instead of a hundred."""
    gc.collect(0)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
