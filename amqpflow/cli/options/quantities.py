"""Durations, rates and percentages as values of options, each in one form."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from amqpflow.model.units import parse_duration, parse_percentage, parse_rate


class Quantity(click.ParamType):  # type: ignore[type-arg] # generic in new releases of click alone
    """A number with a unit. Where a bare number was accepted before, it still is until 1.0, with a note."""

    def __init__(self, name: str, parse: Callable[[str], float], *, bare: str | None = None) -> None:
        self.name = name
        self._parse = parse
        self._bare = bare  #: the unit of a bare number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number: seconds of a duration, messages a second of a rate, a share from 0 to 1 of a percentage.

        Raises:
            click.UsageError: the text is not one.
        """
        if isinstance(value, int | float):
            return float(value)
        option = param.opts[0] if param is not None else self.name
        text = str(value)
        if self._bare is not None and re.fullmatch(r"(?=.*\d)\d{0,20}(\.\d{0,6})?", text, re.ASCII):
            better = f"{text}{self._bare}" if text.isdigit() or self._bare != "s" else f"{round(float(text) * 1000)}ms"
            number = self._parsed(better, option, ctx)
            click.echo(f"Note: write {option} {better}: amqpflow 1.0 refuses a number without a unit.", err=True)
            return number
        return self._parsed(text, option, ctx)

    def _parsed(self, text: str, option: str, ctx: click.Context | None) -> float:
        try:
            return self._parse(text)
        except ValueError as error:
            raise click.UsageError(f"{option}: {error}", ctx) from None


def _seconds(text: str) -> float:
    return parse_duration(text) / 1000


def _share(text: str) -> float:
    return float(parse_percentage(text))


DURATION = Quantity("DURATION", _seconds)
DURATION_OR_SECONDS = Quantity("DURATION", _seconds, bare="s")  #: bare seconds were accepted before
RATE_OR_NUMBER = Quantity("RATE", parse_rate, bare="/s")
PERCENTAGE = Quantity("PERCENT", _share)
