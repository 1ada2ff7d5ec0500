"""Color the output on a terminal, without NO_COLOR (https://no-color.org), or on request."""

from __future__ import annotations

import os
import sys
from typing import TextIO

import click

CHOICES = ("auto", "always", "never")


def wanted(choice: str, stream: TextIO | None = None) -> bool:
    """Tell whether to write colors to `stream`, by default standard output."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return (stream or sys.stdout).isatty()


def paint(text: str, color: str | None, enabled: bool) -> str:
    return click.style(text, fg=color) if enabled and color else text
