"""Print notes about a result on standard error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from amqpflow.cli.safe import safe, said

if TYPE_CHECKING:
    from amqpflow.services.parked.scan import QueueReading


def show_notes(notes: tuple[str, ...] | list[str]) -> None:
    """Print notes on standard error."""
    for note in notes:
        click.echo(f"Note: {said(note)}.", err=True)


def show_readings(notes: tuple[str, ...], readings: Iterable[QueueReading]) -> None:
    """Print notes, and which queues were not read to the end, on standard error."""
    show_notes(notes)
    for each in readings:
        if each.ended_early:
            click.echo(f"Not all of {safe(each.parking_queue)} was read: {said(each.ended_early)}.", err=True)
