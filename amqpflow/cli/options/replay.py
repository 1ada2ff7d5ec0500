"""How a replay is to be done, as options of the command."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from amqpflow.cli.options.reading import ORIGIN_HELP

if TYPE_CHECKING:
    from amqpflow.parking.selection import Selection
    from amqpflow.services.loading.topology import Topology
    from amqpflow.services.replaying.request import ReplayRequest

F = TypeVar("F", bound=Callable[..., Any])
Q = TypeVar("Q")

_NAMES = (
    "to",
    "origin",
    "set_header",
    "drop_header",
    "keep_attempts",
    "rate",
    "ramp",
    "ramp_wait",
    "max_depth",
    "stop_if_reparked",
    "in_doubt",
)


def how_options(function: F) -> F:
    """Add the options; the command receives one `how: dict` of those that were given."""

    @wraps(function)
    def with_how(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in _NAMES}
        how = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value}
        return function(*args, how=how, **kwargs)

    options = [
        click.option("--to", metavar="QUEUE|EXCHANGE:KEY", help="There, not to the work queue each failed in."),
        click.option("--origin", metavar="QUEUE", help=ORIGIN_HELP),
        click.option("--set-header", multiple=True, metavar="NAME=VALUE", help="With this header on the copies."),
        click.option("--drop-header", multiple=True, metavar="NAME", help="Without this header on the copies."),
        click.option("--keep-attempts", is_flag=True, help="Continue counting attempts, not from the first."),
        click.option("--rate", metavar="N/s", help="At most so many messages a second: 50/s, 600/m."),
        click.option("--ramp", metavar="N,N,...", help="First so many, then look at what came back: 1,10,100."),
        click.option("--ramp-wait", metavar="DURATION", help="How long to wait after each step.  [default: 30s]"),
        click.option("--max-depth", type=click.IntRange(min=1), help="Wait while a destination has so many ready."),
        click.option("--stop-if-reparked", metavar="PERCENT", help="Stop when that share is parked again: 20%."),
        click.option(
            "--in-doubt",
            type=click.Choice(("send", "hold")),
            help="What an interrupted replay may have sent: send it again with the same hop id, or leave it.",
        ),
    ]
    for option in reversed(options):
        with_how = option(with_how)
    return with_how  # type: ignore[return-value]


def choice_of(topology: Topology, selection: Selection, how: Mapping[str, Any]) -> ReplayRequest:
    """
    Return what is asked for, as a value.

    Raises:
        click.UsageError: an option cannot be read. UsageError: options that no replay can have.
    """
    import time
    from dataclasses import replace

    from amqpflow.model.units import parse_duration, parse_percentage, parse_rate
    from amqpflow.parking.replay import Destination
    from amqpflow.parking.selection import Matcher, Selection
    from amqpflow.services.replaying.request import ReplayRequest, destination_of

    routes = topology.compiled.routes
    work_queues = {name: Destination.of(each) for name, each in routes.items()}
    everything = replace(selection, queues=(), limit=None, sample=None)
    matcher = Matcher(everything, now=time.time_ns() // 1_000_000, routes=routes)
    wait = _quantity(how, "ramp_wait", parse_duration)
    share = _quantity(how, "stop_if_reparked", parse_percentage)
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
        rate=_quantity(how, "rate", parse_rate),
        ramp=_ramp(how["ramp"]) if "ramp" in how else (),
        ramp_wait=30.0 if wait is None else wait / 1000,
        max_depth=how.get("max_depth"),
        stop_if_reparked=None if share is None else float(share),
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


def _quantity(how: Mapping[str, Any], name: str, parse: Callable[[str], Q]) -> Q | None:
    try:
        return parse(how[name]) if name in how else None
    except ValueError as error:
        raise click.UsageError(f"--{name.replace('_', '-')}: {error}") from None


def _ramp(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text, re.ASCII):
        raise click.UsageError(f"--ramp {text!r}: write numbers of messages, like 1,10,100")
    return tuple(map(int, text.split(",")))
