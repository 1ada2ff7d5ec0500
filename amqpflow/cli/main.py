"""The console script. Commands are imported on use, so --help is as fast as click."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from amqpflow.cli.exit_codes import INTERRUPTED, WRONG_USAGE
from amqpflow.version import __version__

#: name -> (module of cli.commands, attribute, one line for --help). A command that is not here does not exist.
COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "init": ("init", "init", "Write a starter topology file."),
    "validate": ("validate", "validate", "Check topology files, and report all problems at once."),
    "schema": ("schema", "schema", "Print the JSON Schema of topology files, plans or drift reports."),
    "plan": ("plan", "plan", "Show what apply would do, and its consequences."),
    "apply": ("apply", "apply", "Create on the broker what a topology file declares."),
    "status": ("status", "status", "Show how many messages are where, and what is stuck."),
    "graph": ("graph", "graph", "Draw a topology: text, Mermaid, DOT or SVG."),
    "permissions": ("permissions", "permissions", "Print the least permissions for each kind of user."),
    "drift": ("drift", "drift", "Show how the broker differs from the file."),
    "explain": ("explain", "explain", "Show which settings are in effect on a queue, and where they come from."),
    "destroy": ("destroy", "destroy", "Remove from the broker what a topology owns."),
    "adopt": ("adopt", "adopt", "Take over existing queues, exchanges, bindings or policies."),
    "disown": ("adopt", "disown", "Release adopted objects or bindings; they stay on the broker."),
    "parked": ("parked.group", "parked", "Read, export, restore or discard parked messages."),
    "replay": ("replay", "replay", "Replay parked messages to their work queues."),
    "run": ("run", "run", "Run a service's consumer."),
    "healthcheck": ("healthcheck", "healthcheck", "Ask a running service for its health, for exec probes."),
    "dev": ("dev", "dev", "Start a private RabbitMQ to develop against."),
    "completion": ("completion", "completion", "Print the completion script of a shell."),
}

_OUTPUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""The errors of a write to a full or broken disk. Connection failures are AmqpflowErrors by then."""


class LazyGroup(click.Group):
    """A group whose commands are imported on use; their help lines are known without an import."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = self.lazy.get(cmd_name)
        if entry is None:
            return None
        module, attribute, _ = entry
        command: click.Command = getattr(import_module(f"amqpflow.cli.commands.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in self.lazy.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            close = get_close_matches(args[0], self.lazy, n=1)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]}?", ctx) from None


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Retries, parking and replay on plain RabbitMQ.",
    epilog="Exit codes: 0 done, 1 failed, 2 differences, 3 partly done, 4 refused by a guard, "
    "5 locked by another apply, 64 wrong usage, 130 interrupted.",
)
@click.version_option(__version__, prog_name="amqpflow")
def amqpflow() -> None:
    """See `help` above; click takes the text from the decorator."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit the process.

    Exit codes are part of the interface: click's 2 for wrong usage becomes 64, since 2 means differences; an
    AmqpflowError brings its own code and is printed as one line, never as a traceback.
    """
    try:
        result = amqpflow.main(arguments, prog_name="amqpflow", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show()
        code = WRONG_USAGE if isinstance(error, click.UsageError) else error.exit_code
    except BrokenPipeError:
        # the reader of our output went away (`amqpflow ... | head`): nothing left to say, and nowhere to say it
        _discard_output()
        code = 0
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = INTERRUPTED
    except Exception as error:
        from amqpflow.errors import AmqpflowError

        if isinstance(error, AmqpflowError):
            code = show(error)
        elif isinstance(error, OSError) and error.filename is None and error.errno in _OUTPUT_ERRORS:
            _discard_output()
            click.echo(f"Error: cannot write the output: {os.strerror(error.errno)}", err=True)
            code = 1
        elif isinstance(error, FileNotFoundError) and error.filename is None and "temporary dir" in str(error):
            click.echo(f"Error: cannot make a temporary file: {error.strerror}", err=True)
            click.echo("  set TMPDIR to a writable directory", err=True)
            code = 1
        else:
            raise
    sys.exit(code)


def _discard_output() -> None:
    """Discard buffered output, which Python would fail to write again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(error: Any) -> int:
    """Print an AmqpflowError on standard error and return its exit code."""
    from amqpflow.errors import InvalidTopologyError, RefusedError

    from .safe import said

    prefix = "" if isinstance(error, InvalidTopologyError) else "Error: "
    click.echo(prefix + said(error, multiline=True), err=True)
    if isinstance(error, RefusedError):
        for problem in error.problems:
            click.echo(f"  - {said(problem)}", err=True)
    if error.hint:
        click.echo(f"  {said(error.hint)}", err=True)
    return int(error.exit_code)
