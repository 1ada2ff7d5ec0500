"""`amqpflow parked`: read, export, restore and discard parked messages."""

from __future__ import annotations

import click

from amqpflow.cli.main import LazyGroup

COMMANDS = {
    "list": ("parked.list", "list_", "List messages, one line each."),
    "show": ("parked.show", "show", "Show one message: record, history, headers and body."),
    "stats": ("parked.stats", "stats", "Count messages by kind."),
    "export": ("parked.export", "export", "Write messages to a file."),
    "restore": ("parked.restore", "restore", "Restore the messages of a file."),
    "discard": ("parked.discard", "discard", "Move messages out of their queue into a file."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def parked() -> None:
    """Read parked messages, and export, restore or discard them.

    list, show, stats and export change neither the size nor the order of a parking queue, even if they are stopped or
    killed.
    """
