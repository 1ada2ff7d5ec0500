"""The options that say how parked messages are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

ORIGIN_HELP = "Assume this work queue for messages that do not say where they failed."

_unverified = click.option(
    "--unverified",
    is_flag=True,
    help="Read even if amqpflow cannot verify that reading is safe (no management API, missing permission, or a queue "
    "with drop-head overflow).",
)

_prefetch = click.option(
    "--prefetch",
    type=click.IntRange(min=1, max=65_535),
    metavar="N",
    help="Hold at most N messages unacked at once, for a broker that closes connections with more.",
)


_origin = click.option("--origin", metavar="QUEUE", help=ORIGIN_HELP)

_from = click.option(
    "--from",
    "from_queues",
    multiple=True,
    metavar="QUEUE",
    help="Read this queue instead of the parking queues of FILE. FILE may be omitted.",
)


def _read_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that adds options; the command receives one `options: ReadOptions`."""

    def add(function: F) -> F:
        @wraps(function)
        def with_options(*args: Any, **kwargs: Any) -> Any:
            from amqpflow.services.reading.options import ReadOptions

            given = {each.name: kwargs.pop(each.name) for each in fields(ReadOptions) if each.name in kwargs}
            return function(*args, options=ReadOptions(**given), **kwargs)

        added: Any = with_options
        for option in options:
            added = option(added)
        return added  # type: ignore[no-any-return]

    return add


read_options = _read_options(_prefetch, _unverified, _origin, _from)
safety_options = _read_options(_prefetch, _unverified)
prefetch_option = _read_options(_prefetch)
