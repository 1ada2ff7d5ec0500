"""Neutralize text from a message or a broker before a terminal shows it; see `amqpflow.model.safe`."""

from __future__ import annotations

from amqpflow.model.safe import safe as safe

from .option_names import with_options


def said(text: object, *, multiline: bool = False) -> str:
    """Return a text of the library for a terminal: neutralized, with options instead of arguments."""
    return safe(with_options(text), multiline=multiline)
