"""What the demo shows while messages are handled: a row for each, its attempts, and the measured waits between them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from amqpflow import Message


@dataclass
class Attempt:
    """One call of the handler; times are in seconds of `time.monotonic`."""

    began: float
    ended: float | None = None
    succeeded: bool = False


class Timeline(logging.Handler):
    """Every call of the handler for every message; that one is parked is heard from the consumer's log."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.attempts: dict[str, list[Attempt]] = {name: [] for name in names}
        self.parked: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "outcome", "") == "parked":
            self.parked.add(record.message_id)  # type: ignore[attr-defined]

    def watch(self, handler: Callable[[Message], Awaitable[None]]) -> Callable[[Message], Awaitable[None]]:
        async def watched(message: Message) -> None:
            attempt = Attempt(time.monotonic())
            self.attempts[str(message.message_id)].append(attempt)
            try:
                await handler(message)
                attempt.succeeded = True
            finally:
                attempt.ended = time.monotonic()

        return watched

    def successes(self) -> Counter[str]:
        """How often each message was handled to the end."""
        return Counter(name for name, made in self.attempts.items() for each in made if each.succeeded)

    def waits(self, name: str) -> list[float]:
        """Seconds from each failure to the next attempt."""
        made = self.attempts[name]
        return [after.began - (before.ended or 0) for before, after in pairwise(made)]

    def table(self, headings: Collection[str]) -> Table:
        """A row for each message: what became of its attempts, and in between the waits."""
        table = Table(box=None, pad_edge=False)
        table.add_column("message")
        for heading in headings:
            table.add_column(heading, justify="right" if heading.startswith("after") else "left")
        for name, made in self.attempts.items():
            table.add_row(name, *self._cells(name, made))
        return table

    def _cells(self, name: str, made: list[Attempt]) -> Iterator[Text]:
        waits = self.waits(name)
        for number, attempt in enumerate(made):
            last = number == len(made) - 1
            if attempt.succeeded:
                yield Text("ok", "green")
            elif last and name in self.parked:
                yield Text("parked", "red")
            else:
                yield Text("failed", "yellow")
                if attempt.ended is not None:
                    yield Text(f"{time.monotonic() - attempt.ended:.1f} s ..." if last else f"{waits[number]:.3f} s")


@contextmanager
def shown(console: Console, timeline: Timeline, headings: Collection[str]) -> Iterator[None]:
    """Show the table as it fills on a terminal, else once at the end."""

    def table() -> Table:
        return timeline.table(headings)

    if console.is_terminal:
        with Live(console=console, get_renderable=table, refresh_per_second=10):
            yield
    else:
        yield
        console.print(table())
