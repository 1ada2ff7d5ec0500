"""`amqpflow permissions FILE`: what each kind of user has to be allowed, and no more. No broker is asked."""

from __future__ import annotations

import click

from amqpflow.cli.options.connection import FILE, output_option
from amqpflow.cli.topology_file import load

_ROLES = ("apply", "consume", "publish", "replay", "observe")


@click.command()
@click.argument("file", type=FILE)
@click.option("--role", "roles", type=click.Choice(_ROLES), multiple=True, help="Only this one; may be repeated.")
@click.option(
    "--queue", "queues", multiple=True, help="What consume and replay are about: this work queue; may be repeated."
)
@click.option("--exact", is_flag=True, help="Never widen a pattern; RabbitMQ before 4.3 takes long ones.")
@output_option("text", "json")
def permissions(file: str, roles: tuple[str, ...], queues: tuple[str, ...], exact: bool, output: str) -> int:
    """
    Print the least permissions and tags for users that apply, consume, publish, replay and observe FILE's topology.

    The text ends with the rabbitmqctl lines that grant them, quoted for a shell; users are called TOPOLOGY-ROLE there.
    Patterns are exact as long as they fit into the 1024 bytes that RabbitMQ 4.3 takes; what is wider is said.
    """
    from amqpflow.api import permissions as grants
    from amqpflow.cli.render.permissions import permissions_object, permissions_text
    from amqpflow.cli.render.values import as_document

    topology = load(file)
    found = grants(topology, roles=roles, queues=queues, exact=exact)
    if output == "json":
        click.echo(as_document(permissions_object(topology.compiled, found)))
    else:
        click.echo(permissions_text(topology.compiled, found))
    return 0
