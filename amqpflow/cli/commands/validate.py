"""`amqpflow validate`: report every problem of topology files at once, each with its place, without a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from amqpflow.cli.options.connection import FILE, output_option
from amqpflow.cli.render.values import picked
from amqpflow.model.units import plural

if TYPE_CHECKING:
    from amqpflow.model.diagnostic import Diagnostic
    from amqpflow.model.routes import CompiledTopology
    from amqpflow.topology.check import Checked

VERSION = 1

_MESSAGE_IDS = "publish with a message id: without one, a copy made by a crash at a first failure cannot be recognised"


@click.command()
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
@output_option("text", "json")
def validate(files: tuple[str, ...], strict: bool, output: str) -> int:
    """Check topology files, each alone and all against each other.

    For a directory, amqpflow reads the .yaml and .yml files in it. Problems are printed as file:line:column: code:
    message (hint); docs/reference/diagnostics.md explains the codes. Exit code 0: no errors. 1: errors, or warnings
    with --strict.
    """
    from amqpflow.services.loading.topology_files import check_paths

    checked = check_paths(files)
    failed = bool(checked.errors or (strict and checked.warnings))
    if output == "json":
        from amqpflow.cli.render.values import as_document

        click.echo(as_document(_as_json(checked, failed)))
    else:
        _print(checked, strict)
    return 1 if failed else 0


def _print(checked: Checked, strict: bool) -> None:
    from amqpflow.cli.safe import safe

    for problem in checked.diagnostics:
        click.echo(safe(problem))
    for topology in checked.topologies:
        for note in topology.notes:
            click.echo(safe(f"{topology.file}: note: {note}"), err=True)
    if any(topology.routes for topology in checked.topologies):
        click.echo(f"note: {_MESSAGE_IDS}", err=True)
    counts = [_count(len(checked.errors), "error"), _count(len(checked.warnings), "warning")]
    found = ", ".join(count for count in counts if count)
    if checked.errors:
        click.echo(f"{found}: not valid", err=True)
        return
    sizes = "; ".join(_size(topology) for topology in checked.topologies)
    verdict = "valid, but not with --strict" if found and strict else "valid"
    click.echo(safe(f"{found + ': ' if found else ''}{verdict}. {sizes}"), err=True)


def _size(topology: CompiledTopology) -> str:
    work, parking = len(topology.routes), len(topology.parking_queues)
    retry = len({tier.queue for routes in topology.routes.values() for tier in routes.tiers if not routes.external})
    counts = (_count(work, "work queue"), _count(retry, "retry queue"), _count(parking, "parking queue"))
    return f"{topology.name}: {', '.join(count for count in counts if count) or 'no queues'}"


def _count(number: int, what: str) -> str:
    return plural(number, what) if number else ""


def _as_json(checked: Checked, failed: bool) -> dict[str, Any]:
    return {
        "version": VERSION,
        "valid": not failed,
        "errors": len(checked.errors),
        "warnings": len(checked.warnings),
        "problems": [_problem(each) for each in checked.diagnostics],
        "topologies": [
            {
                "name": topology.name,
                "file": topology.file,
                "vhost": topology.vhost or None,
                "queues": list(topology.routes),
                "notes": topology.notes,
            }
            for topology in checked.topologies
        ],
    }


def _problem(problem: Diagnostic) -> dict[str, Any]:
    return {
        **picked(problem.place, "file", "line", "column"),
        "code": problem.code,
        "severity": problem.severity.value,
        **picked(problem, "message", "hint"),
    }
