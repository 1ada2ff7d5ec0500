"""The options that say how to replay."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from amqpflow.cli.options.quantities import DURATION, PERCENTAGE, RATE_OR_NUMBER
from amqpflow.cli.options.reading import ORIGIN_HELP

if TYPE_CHECKING:
    from amqpflow import ReplayRequest, Selection, Topology

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: dict[str, dict[str, Any]] = {
    "--to": {
        "metavar": "QUEUE|EXCHANGE:KEY",
        "help": "Publish to this queue or exchange instead of the work queue that each message failed in.",
    },
    "--origin": {"metavar": "QUEUE", "help": ORIGIN_HELP},
    "--set-header": {"multiple": True, "metavar": "NAME=VALUE", "help": "Set this header on replayed messages."},
    "--drop-header": {"multiple": True, "metavar": "NAME", "help": "Remove this header from replayed messages."},
    "--keep-attempts": {"is_flag": True, "help": "Continue counting attempts instead of starting over."},
    "--rate": {
        "metavar": "N/s",
        "type": RATE_OR_NUMBER,
        "help": "Publish at most this many messages: 50/s, 600/m.",
    },
    "--ramp": {
        "metavar": "N,N,...",
        "help": "Replay in growing batches, e.g. 1,10,100, and check for re-parked messages after each.",
    },
    "--ramp-wait": {
        "metavar": "DURATION",
        "type": DURATION,
        "help": "Wait this long after each batch of --ramp.  [default: 30s]",
    },
    "--max-depth": {"type": click.IntRange(min=1), "help": "Wait while a destination has this many ready messages."},
    "--stop-if-reparked": {
        "metavar": "PERCENT",
        "type": PERCENTAGE,
        "help": "Stop when this share of the replayed messages is parked again: 20%.",
    },
    "--in-doubt": {
        "type": click.Choice(("send", "hold")),
        "help": "Send again, with the same hop id, what an interrupted replay may have sent; or hold it.",
    },
}
_NAMES = {option: option.removeprefix("--").replace("-", "_") for option in _OPTIONS}


def how_options(function: F) -> F:
    """Add the options; the command receives one `how: dict` of those that were given."""

    @wraps(function)
    def with_how(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in _NAMES.values()}
        how = {name: each for name, each in given.items() if each is not None and each is not False and each != ()}
        return function(*args, how=how, **kwargs)

    for option, settings in reversed(_OPTIONS.items()):
        with_how = click.option(option, **settings)(with_how)
    return with_how  # type: ignore[return-value]


def choice_of(topology: Topology, selection: Selection, how: Mapping[str, Any]) -> ReplayRequest:
    """Return the request that the options describe.

    Raises:
        click.UsageError: an option cannot be read. UsageError: options that no replay can have.
    """
    import time
    from dataclasses import replace

    from amqpflow.parking.replay import Destination
    from amqpflow.parking.selection import Matcher, Selection
    from amqpflow.services.replaying.request import ReplayRequest, destination_of

    routes = topology.compiled.routes
    work_queues = {name: Destination.of(each) for name, each in routes.items()}
    everything = replace(selection, queues=(), limit=None, sample=None)
    matcher = Matcher(everything, now=time.time_ns() // 1_000_000, routes=routes)
    return ReplayRequest(
        limit=selection.limit,
        sample=selection.sample,
        seed=selection.seed,
        select=None if everything == Selection(seed=selection.seed) else matcher,
        to=destination_of(how["to"], work_queues) if "to" in how else None,
        origin=how.get("origin"),
        keep_attempts=bool(how.get("keep_attempts")),
        set_headers=dict(map(_header, how.get("set_header", ()))),
        drop_headers=frozenset(how.get("drop_header", ())),
        rate=how.get("rate"),
        ramp=_ramp(how["ramp"]) if "ramp" in how else (),
        ramp_wait=how.get("ramp_wait", 30.0),
        max_depth=how.get("max_depth"),
        stop_if_reparked=how.get("stop_if_reparked"),
        in_doubt=how.get("in_doubt"),
    )


def _header(text: str) -> tuple[str, str]:
    from amqpflow.model.outgoing import header_problems, listed

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--set-header {text!r}: write NAME=VALUE")
    if problems := listed(header_problems({name: value}, "--set-header")):
        raise click.UsageError(problems)
    return name, value


def _ramp(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text, re.ASCII):
        raise click.UsageError(f"--ramp {text!r}: write numbers of messages, like 1,10,100")
    return tuple(map(int, text.split(",")))
