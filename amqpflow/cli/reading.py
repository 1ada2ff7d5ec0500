"""Read parked messages for a command, with a progress bar and Ctrl-C."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import click

from .progress import progress
from .safe import safe
from .stopping import run_until_stopped

if TYPE_CHECKING:
    from amqpflow.services.reading.options import ReadOptions

T = TypeVar("T")

GIVING_BACK = "all messages are requeued"


def read(
    call: Callable[[ReadOptions], Awaitable[T]],
    options: ReadOptions,
    *,
    verb: str = "Reading",
    says: str = GIVING_BACK,
    at_most: int | None = None,
) -> tuple[T, bool]:
    """
    Run a call of the client, and return its result and whether Ctrl-C stopped it.

    Args:
        call: is given the options, with where to report progress and what stops it.
        options: of the command line.
        verb, at_most: as for `progress`.
        says: as for `run_until_stopped`.
    """
    with progress(verb, at_most=at_most) as on_progress:
        return run_until_stopped(
            lambda stop: call(replace(options, stop=stop, on_progress=on_progress, on_wait=_waits)), says=says
        )


def _waits(queue: str) -> None:
    click.echo(f"Waiting for another amqpflow command that reads {safe(queue)}.", err=True)
