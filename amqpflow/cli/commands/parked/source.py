"""The parked messages that a command works on: where they are, which of them, and how to read them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from amqpflow.cli.exit_codes import INTERRUPTED, PARTLY_DONE
from amqpflow.cli.options.connection import FILE, connection_options, output_option
from amqpflow.cli.options.reading import read_options
from amqpflow.cli.options.selection import selection_options
from amqpflow.cli.reading import REQUEUED, read
from amqpflow.cli.render.notes import show_readings
from amqpflow.cli.topology_file import client_of, load

if TYPE_CHECKING:
    from amqpflow import ParkedClient, ReadOptions, Selection, Topology
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.parked.export import ExportReport
    from amqpflow.services.parked.listing import ParkedListing
    from amqpflow.services.parked.stats import ParkedStats

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class How(TypedDict):
    """Arguments of every call of `ParkedClient` that reads."""

    selection: Selection
    options: ReadOptions


class Source:
    """What the options of a command name. The file is loaded when it is first read."""

    def __init__(self, file: str | None, selection: Selection, options: ReadOptions, address: BrokerAddress) -> None:
        self.selection = selection
        self._file, self._options, self._address = file, options, address

    def read(
        self,
        call: Callable[[ParkedClient, Topology | None, How], Awaitable[T]],
        *,
        verb: str = "Reading",
        says: str = REQUEUED,
    ) -> tuple[T, bool]:
        """Run a call, and return its result and whether Ctrl-C stopped it. Arguments as for `cli.reading.read`."""
        topology, parked = self._place
        return read(
            lambda options: call(parked, topology, {"selection": self.selection, "options": options}),
            self._options,
            verb=verb,
            says=says,
        )

    @cached_property
    def _place(self) -> tuple[Topology | None, ParkedClient]:
        from amqpflow import connect

        if self._file is None:
            if not self._options.from_queues:
                raise click.UsageError("Name a topology file, or a queue with --from.")
            return None, connect(self._address).parked
        topology = load(self._file)
        return topology, client_of(topology, self._address).parked


def source_options(*formats: str) -> Callable[[F], F]:
    """Add FILE, what selects and reads messages, and -o; the command receives one `source: Source`, and `output`."""

    def add(function: F) -> F:
        @wraps(function)
        def with_source(*args: Any, file: Any, selection: Any, options: Any, address: Any, **kwargs: Any) -> Any:
            return function(*args, source=Source(file, selection, options, address), **kwargs)

        added: Any = output_option(*formats)(with_source)
        for option in (connection_options, read_options, selection_options):
            added = option(added)
        return click.argument("file", type=FILE, required=False)(added)  # type: ignore[no-any-return]

    return add


def conclude(found: ParkedListing | ParkedStats | ExportReport, *, stopped: bool) -> int:
    """Print notes, and which queues were not read to the end; return the exit code."""
    show_readings(found.notes, found.queues)
    if stopped:
        return INTERRUPTED
    return 0 if found.complete else PARTLY_DONE
