"""`amqpflow plan FILE`: show what apply would do, and what it means for messages and consumers."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import click

from amqpflow.cli.exit_codes import DIFFERENCES, REFUSED
from amqpflow.cli.options.connection import FILE, color_option, connection_options, output_option
from amqpflow.cli.render import colors
from amqpflow.cli.safe import safe
from amqpflow.cli.topology_file import client_of, load

if TYPE_CHECKING:
    from amqpflow.planning.values.plan import Plan
    from amqpflow.rabbitmq.address import BrokerAddress


@click.command()
@click.argument("file", type=FILE)
@connection_options
@output_option("text", "json", "markdown")
@color_option
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 2 when there is something to do.")
@click.option(
    "--prune", is_flag=True, help="Include the removal of objects that the topology owns and FILE no longer has."
)
@click.option(
    "--allow",
    multiple=True,
    metavar="WORDS",
    help="Plan as if apply had this --allow, e.g. delete:QUEUE.",
)
@click.option("--out", type=click.Path(dir_okay=False), metavar="PATH", help="Save the plan for `amqpflow apply PATH`.")
def plan(
    file: str,
    address: BrokerAddress,
    output: str,
    color: str,
    detailed_exitcode: bool,
    prune: bool,
    allow: tuple[str, ...],
    out: str | None,
) -> int:
    """Show what `amqpflow apply FILE` would do, step by step, and change nothing.

    Exit code 0: apply can run (with --detailed-exitcode: nothing to do). 2, with --detailed-exitcode: there is
    something to do. 4: apply would refuse, and the reasons are shown. `amqpflow apply PATH` carries out a plan that
    --out saved exactly, or refuses it if the broker has changed. A saved plan contains no password.
    """
    topology = load(file)
    broker = client_of(topology, address)
    made = asyncio.run(broker.plan(topology, prune=prune, allow=allow))
    _print(made, output, colors.wanted(color))
    if out is not None:
        _save(made, out)
    if made.refusals:
        return REFUSED
    return DIFFERENCES if detailed_exitcode and not made.nothing_to_do else 0


def _save(made: Plan, out: str) -> None:
    from amqpflow.services.provisioning.plan_files import save_plan

    if made.refusals:
        click.echo(safe(f"Not saved as {out}: apply would refuse it."), err=True)
        return
    save_plan(made, out)
    click.echo(safe(f"Saved: amqpflow apply {out}"), err=True)


def _print(made: Plan, output: str, color: bool) -> None:
    match output:
        case "json":
            from amqpflow.cli.render.plan_json import plan_object
            from amqpflow.cli.render.values import as_document

            click.echo(as_document(plan_object(made)))
        case "markdown":
            from amqpflow.cli.render.plan_markdown import plan_markdown

            click.echo(plan_markdown(made), nl=False)
        case _:
            from amqpflow.cli.render.plan import plan_summary, plan_text

            width = shutil.get_terminal_size((120, 24)).columns
            click.echo(plan_text(made, color=color, width=width), color=color)
            click.echo(safe(plan_summary(made)))
