"""`amqpflow parked`: look at parked messages, keep them elsewhere, and bring them back."""

from __future__ import annotations

import click

from amqpflow.cli.main import LazyGroup

COMMANDS = {
    "list": ("parked.list", "list_", "One line for each message."),
    "show": ("parked.show", "show", "All of one message: record, history, headers and body."),
    "stats": ("parked.stats", "stats", "How many there are of which kind."),
    "export": ("parked.export", "export", "Write messages to a file."),
    "restore": ("parked.restore", "restore", "Put the messages of a file back."),
    "discard": ("parked.discard", "discard", "Take messages out of their queue, into a file."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def parked() -> None:
    """
    Look at parked messages, and export, restore or discard them.

    list, show, stats and export change neither the size nor the order of a parking queue, also when they are stopped
    or killed.
    """
