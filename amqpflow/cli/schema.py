"""`amqpflow schema`: the JSON Schema of topology files."""

from __future__ import annotations

import click


@click.command()
def schema() -> None:
    """
    Print the JSON Schema of topology files, for editors.

    Save it beside your files, and let their first line be

    \b
        # yaml-language-server: $schema=./topology.schema.json
    """
    from amqpflow.topology.schema import schema_text

    click.echo(schema_text(), nl=False)
