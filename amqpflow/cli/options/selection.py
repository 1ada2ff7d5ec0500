"""The options that select parked messages, for list, stats, export, discard and replay."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_MULTIPLE: tuple[tuple[str, str, str, str], ...] = (  # option, field, metavar, help
    ("--queue", "queues", "QUEUE", "Select messages of this work queue, or in this parking queue."),
    ("--reason", "reasons", "REASON", "Select by reason: exhausted, permanent, broker, broker:expired ..."),
    ("--error-type", "error_types", "NAME", "Select by error class, or the last part of its name."),
    ("--fingerprint", "fingerprints", "HEX", "Select by fingerprint, or its beginning."),
    ("--header", "headers", "NAME[=VALUE]", "Select by header. Given twice, both must match."),
    (
        "--routing-key",
        "routing_keys",
        "KEY",
        "Select by the routing key of the first publish; * and # as in a topic binding.",
    ),
    (
        "--attempts",
        "attempts",
        "N",
        "Select by number of attempts: 3, '>=3', '<10', '!=1'. Given twice, both must hold.",
    ),
    ("--id", "ids", "ID", "Select by id, the beginning of an id, message id or hop id."),
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
        click.option(
            "--older-than", metavar="DURATION", help="Select messages parked at least this long ago: 90s, 2h, 14d."
        ),
        click.option("--newer-than", metavar="DURATION", help="Select messages parked less than this long ago."),
        click.option(
            "--match",
            metavar="JMESPATH",
            help="Select messages for which this is true of {headers, properties, body, record}.",
        ),
        click.option(
            "--limit",
            type=click.IntRange(min=1),
            help="Take the first N selected messages of the queue: higher priorities first, then the oldest.",
        ),
        click.option("--sample", type=click.IntRange(min=1), help="Take N of the selected messages at random."),
        click.option("--seed", type=int, default=0, show_default=True, help="Draw another sample."),
    ]
    for option in reversed(options):
        with_selection = option(with_selection)
    return with_selection  # type: ignore[return-value]
