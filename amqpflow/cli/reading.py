"""Read parked messages for a command, with a progress bar and Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import click

from .safe import safe
from .stopping import run_until_stopped

if TYPE_CHECKING:
    from amqpflow.services.reading.options import ReadOptions

T = TypeVar("T")

REQUEUED = "all messages are requeued"


@contextmanager
def _progress(verb: str, at_most: int | None) -> Iterator[Callable[[str, int, int], None] | None]:
    """Yield a callback that draws a progress bar on standard error, or None if that is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=None)

        def update(what: str, done: int, expected: int) -> None:
            total = expected if at_most is None else min(expected, at_most)
            bar.update(task, description=f"{verb} {safe(what)}", completed=done, total=total)

        yield update


def read(
    call: Callable[[ReadOptions], Awaitable[T]],
    options: ReadOptions,
    *,
    verb: str = "Reading",
    says: str = REQUEUED,
    at_most: int | None = None,
) -> tuple[T, bool]:
    """Run a call of the client, and return its result and whether Ctrl-C stopped it.

    Args:
        call: is given the options, with where to report progress and what stops it.
        options: of the command line.
        verb: the activity: Reading, Replaying.
        at_most: the most messages that can come, whatever is expected.
        says: as for `run_until_stopped`.
    """
    with _progress(verb, at_most) as on_progress:
        return run_until_stopped(
            lambda stop: call(replace(options, stop=stop, on_progress=on_progress, on_wait=_waits)), says=says
        )


def _waits(queue: str) -> None:
    click.echo(f"Waiting for another amqpflow command that reads {safe(queue)}.", err=True)
