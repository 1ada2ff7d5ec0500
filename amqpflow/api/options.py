"""`ReadOptions` in the calls of a client, and the deprecated arguments for its fields."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

from amqpflow.services.reading.options import Progress, ReadOptions


class OldReadOptions(TypedDict, total=False):
    """The fields of `ReadOptions` as separate arguments: deprecated, removed in 1.0."""

    from_queues: Sequence[str]
    origin: str | None
    unverified: bool
    prefetch: int | None
    stop: asyncio.Event | None
    on_progress: Progress | None
    on_wait: Callable[[str], None] | None


def require_known(given: Mapping[str, Any], options: type[Any]) -> None:
    """Make sure that a typed dictionary of options has each of these keyword arguments.

    Raises:
        TypeError: one of them is unknown.
    """
    if unknown := given.keys() - options.__annotations__.keys():
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")


def merged(options: ReadOptions | None, old: Mapping[str, Any]) -> ReadOptions:
    """Return the options with the deprecated arguments merged in, and warn the caller of the public function.

    Raises:
        TypeError: an unknown argument.
    """
    require_known(old, OldReadOptions)
    if old:
        names = ", ".join(old)
        warnings.warn(f"{names}: give options=amqpflow.ReadOptions(...) instead", DeprecationWarning, stacklevel=3)
    return replace(options or ReadOptions(), **{name: value for name, value in old.items() if value is not None})


def refuse_places(options: ReadOptions | None) -> ReadOptions:
    """Return the options of a call that takes no queues from them.

    Raises:
        UsageError: they name queues.
    """
    from amqpflow.errors import UsageError

    options = options or ReadOptions()
    if options.from_queues or options.origin is not None:
        raise UsageError("ReadOptions.from_queues and ReadOptions.origin are for the calls that only read")
    return options
