"""`amqpflow permissions FILE`: print the least permissions for each kind of user, without a broker."""

from __future__ import annotations

import click

from amqpflow.cli.options.connection import FILE, output_option
from amqpflow.cli.topology_file import load

_ROLES = ("apply", "consume", "publish", "replay", "observe")


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--role", "roles", type=click.Choice(_ROLES), multiple=True, help="Print only this role. May be repeated."
)
@click.option(
    "--queue", "queues", multiple=True, help="Limit the consume and replay roles to this work queue. May be repeated."
)
@click.option("--exact", is_flag=True, help="Never widen a pattern. RabbitMQ before 4.3 accepts long ones.")
@output_option("text", "json")
def permissions(file: str, roles: tuple[str, ...], queues: tuple[str, ...], exact: bool, output: str) -> int:
    """Print the least permissions and tags for users that apply, consume, publish, replay and observe FILE's topology.

    The output ends with the rabbitmqctl commands that grant them, quoted for a shell, with users named TOPOLOGY-ROLE.
    Patterns are exact as long as they fit into the 1024 bytes that RabbitMQ 4.3 accepts. A note names each wider one.
    """
    from amqpflow.api.reporting import permissions as grants
    from amqpflow.cli.render.permissions import permissions_object, permissions_text
    from amqpflow.cli.render.values import as_document

    topology = load(file)
    found = grants(topology, roles=roles, queues=queues, exact=exact)
    if output == "json":
        click.echo(as_document(permissions_object(topology.compiled, found)))
    else:
        click.echo(permissions_text(topology.compiled, found))
    return 0
