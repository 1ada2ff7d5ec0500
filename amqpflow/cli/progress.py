"""Draw a progress bar for messages, on a terminal, on standard error, so standard output stays clean."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]  #: what is worked on, done, expected


@contextmanager
def progress(verb: str, *, at_most: int | None = None) -> Iterator[Progress | None]:
    """
    Yield a callback, or None if standard error is not a terminal.

    Args:
        verb: the activity: Reading, Replaying.
        at_most: the most messages that can come, whatever is expected.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .safe import safe

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=None)

        def update(what: str, done: int, expected: int) -> None:
            total = expected if at_most is None else min(expected, at_most)
            bar.update(task, description=f"{verb} {safe(what)}", completed=done, total=total)

        yield update
