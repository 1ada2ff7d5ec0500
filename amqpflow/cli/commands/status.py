"""`amqpflow status FILE`: show how many messages are where, and what is stuck or hidden."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

import click

from amqpflow.cli.exit_codes import DIFFERENCES
from amqpflow.cli.options.connection import FILE, color_option, connection_options, output_option
from amqpflow.cli.options.quantities import DURATION
from amqpflow.cli.render import colors
from amqpflow.cli.safe import safe
from amqpflow.cli.topology_file import client_of, load

if TYPE_CHECKING:
    from rich.console import Console

    from amqpflow import Client, Topology
    from amqpflow.planning.reports.status import Status
    from amqpflow.rabbitmq.address import BrokerAddress


@click.command()
@click.argument("file", type=FILE)
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C; on a terminal as a live table.")
@click.option(
    "--interval", type=DURATION, default="2s", show_default=True, metavar="DURATION", help="Refresh after this time."
)
@click.option("--oldest", is_flag=True, help="Show the age of the oldest message of each parking queue, by reading it.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 2 if there are alerts.")
@connection_options
@output_option("text", "json")
@color_option
def status(
    file: str,
    watch: bool,
    interval: float,
    oldest: bool,
    detailed_exitcode: bool,
    address: BrokerAddress,
    output: str,
    color: str,
) -> int:
    """Show how many messages of FILE's topology are ready, unacked, waiting for a retry, and parked.

    Alerts come first: messages that RabbitMQ retains unseen, missing queues, queues without a consumer, growing parking
    queues, foreign policies. No message is touched; --oldest reads one message of each parking queue, as `parked list`
    does. Without the management API only ready messages and consumers are visible. See docs/how-to/watch.md.
    """
    from amqpflow.errors import UsageError

    if interval < 0.1:
        raise UsageError("--interval must be at least 100ms")
    topology = load(file)
    view = _View(topology, client_of(topology, address), oldest, output == "json", color)
    return view.watch(interval) if watch else view.once(detailed_exitcode)


class _View:
    def __init__(self, topology: Topology, broker: Client, oldest: bool, as_json: bool, color: str) -> None:
        self.topology = topology
        self.broker = broker
        self.oldest = oldest
        self.as_json = as_json
        self.color = color

    def once(self, detailed_exitcode: bool) -> int:
        found = asyncio.run(self.broker.status(self.topology, oldest=self.oldest))
        self._print(found)
        return DIFFERENCES if detailed_exitcode and found.alerts else 0

    def watch(self, pause: float) -> int:
        """Show the status until Ctrl-C, and return 0."""
        from amqpflow.cli.stopping import run_until_stopped

        run_until_stopped(lambda stop: self._watch(stop, pause), says="finishing this refresh")
        return 0

    async def _watch(self, stop: asyncio.Event, pause: float) -> None:
        in_turn = self.as_json or not sys.stdout.isatty()
        with nullcontext(self) if in_turn else _Screen(self.console()) as show:
            statuses = self.broker.watch(
                self.topology,
                interval=pause,
                oldest=self.oldest,
                stop=stop,
                on_error=lambda error: show.trouble(f"{error}; retrying"),
            )
            async for found in statuses:
                show.status(found)

    def status(self, found: Status) -> None:
        """Print one status of several, as JSON in one line."""
        self._print(found, one_line=True)
        if not self.as_json:
            click.echo()
        sys.stdout.flush()

    def trouble(self, text: str) -> None:
        click.echo(safe(text), err=True)

    def _print(self, found: Status, *, one_line: bool = False) -> None:
        from amqpflow.cli.render.status import status_object, status_view
        from amqpflow.cli.render.values import as_document, as_line

        if self.as_json:
            click.echo((as_line if one_line else as_document)(status_object(found)))
        else:
            console = self.console()
            console.print(status_view(found, console.width), soft_wrap=False)

    def console(self) -> Console:
        """Return where to print: as wide as the terminal, otherwise as wide as needed."""
        from rich.console import Console

        wanted = colors.wanted(self.color)
        wide = None if sys.stdout.isatty() else 1000
        colours: Literal["auto"] | None = "auto" if wanted else None
        return Console(
            width=wide,
            force_terminal=wanted or None,
            color_system=colours,
            highlight=False,
            markup=False,
            emoji=False,
        )


class _Screen:
    """Draws a live table on a terminal, restores the screen at the end, and leaves the last status below."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self.console = console
        self.live = Live(console=console, screen=True, auto_refresh=False)
        self.last: Status | None = None

    def __enter__(self) -> _Screen:
        self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        from amqpflow.cli.render.status import status_view

        self.live.__exit__(None, None, None)
        if self.last is not None:
            self.console.print(status_view(self.last, self.console.width))

    def status(self, found: Status) -> None:
        self.last = found
        self._draw(found, "")

    def trouble(self, text: str) -> None:
        if self.last is not None:
            self._draw(self.last, text)

    def _draw(self, found: Status, trouble: str) -> None:
        from rich.console import Group
        from rich.text import Text

        from amqpflow.cli.render.status import status_view

        width, height = self.console.size
        view = status_view(found, width, height - (1 if trouble else 0))
        self.live.update(Group(Text(safe(trouble), style="red"), view) if trouble else view, refresh=True)
