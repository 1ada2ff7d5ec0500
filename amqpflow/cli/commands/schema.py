"""`amqpflow schema`: print the JSON Schemas of topology files and of command output."""

from __future__ import annotations

import json

import click

KINDS = ("topology", "plan", "drift")


@click.command()
@click.argument("kind", type=click.Choice(KINDS), default=KINDS[0])
def schema(kind: str) -> None:
    """Print a JSON Schema: of topology files, for editors, or of the JSON that a command prints.

    Save the schema of topology files beside yours, and begin each of them with

    \b
        # yaml-language-server: $schema=./topology.schema.json
    """
    match kind:
        case "plan":
            from amqpflow.cli.render.plan_schema import plan_schema

            click.echo(json.dumps(plan_schema(), indent=2))
        case "drift":
            from amqpflow.cli.render.drift import drift_schema

            click.echo(json.dumps(drift_schema(), indent=2))
        case _:
            from amqpflow.topology.language.json_schema import schema_text

            click.echo(schema_text(), nl=False)
