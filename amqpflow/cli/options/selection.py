"""The options by which list, stats, export, discard and replay say which parked messages they mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_MULTIPLE: tuple[tuple[str, str, str, str], ...] = (  # option, field, metavar, help
    ("--queue", "queues", "QUEUE", "Of this work queue, or in this parking queue."),
    ("--reason", "reasons", "REASON", "Parked for this reason: exhausted, permanent, broker, broker:expired ..."),
    ("--error-type", "error_types", "NAME", "With this error: the class, or the last part of its name."),
    ("--fingerprint", "fingerprints", "HEX", "With this fingerprint, or one that begins so."),
    ("--header", "headers", "NAME[=VALUE]", "With this header. Given twice: with both."),
    ("--routing-key", "routing_keys", "KEY", "First published with this key; * and # as in a topic binding."),
    ("--attempts", "attempts", "N", "After so many attempts: 3, '>=3', '<10', '!=1'. Given twice: both."),
    ("--id", "ids", "ID", "With this id, or one that begins so, or this message id, or hop."),
)


def selection_options(function: F) -> F:
    """Add the options; the command receives one `selection: Selection`."""

    @wraps(function)
    def with_selection(*args: Any, **kwargs: Any) -> Any:
        from amqpflow.cli.safe import said
        from amqpflow.parking.selection import InvalidSelectionError, Selection

        names = [field for _, field, _, _ in _MULTIPLE]
        names += ["older_than", "newer_than", "match", "limit", "sample", "seed"]
        given = {name: kwargs.pop(name) for name in names}
        try:
            selection = Selection(**given)
        except InvalidSelectionError as error:
            raise click.UsageError("\n".join(said(each, multiline=True) for each in error.problems)) from None
        return function(*args, selection=selection, **kwargs)

    options = [
        click.option(option, field, multiple=True, metavar=metavar, help=text)
        for option, field, metavar, text in _MULTIPLE
    ]
    options += [
        click.option("--older-than", metavar="DURATION", help="Parked at least so long ago: 90s, 2h, 14d."),
        click.option("--newer-than", metavar="DURATION", help="Parked less long ago than that."),
        click.option("--match", metavar="JMESPATH", help="True of {headers, properties, body, record}."),
        click.option(
            "--limit",
            type=click.IntRange(min=1),
            help="Take the first N selected messages in the queue's order: the oldest, after those of higher priority.",
        ),
        click.option("--sample", type=click.IntRange(min=1), help="So many of those selected, at random, evenly."),
        click.option("--seed", type=int, default=0, show_default=True, help="For another sample."),
    ]
    for option in reversed(options):
        with_selection = option(with_selection)
    return with_selection  # type: ignore[return-value]
