"""`amqpflow init`: write a starter topology file."""

from __future__ import annotations

import re
from pathlib import Path

import click

from amqpflow.cli.safe import safe

_SCHEMA = "topology.schema.json"

_STARTER = """\
# yaml-language-server: $schema=./topology.schema.json
version: 1
name: {name}                     # owns what is declared here; names the exchanges {name}.retry and {name}.parking
# vhost: ${{AMQPFLOW_VHOST:-/}}    # else the one in the broker's URL

defaults:
  retry: standard                # of queues that do not say

retry_policies:
  standard:
    delays: [5s, 30s, 5m]        # at most 4 attempts, then the message is parked
    # give_up_after: 24h         # parked earlier when the next attempt would be later than that
    # jitter: 10%                # spreads what failed together
    on:                          # the first match decides; a name matches the exception's class or a base of it
      - errors: [TimeoutError, ConnectionError]
        delays: [1s, 10s, 1m, 10m]
      - errors: [ValueError]
        park: invalid            # trying again would not help: parked at once, with this reason

exchanges:
  {name}.events: {{type: topic}}

queues:
  {name}.work:                   # also gets a retry queue for each delay, and {name}.work.parking
    bindings:
      - {{exchange: {name}.events, routing_key: "{name}.*"}}
    # limits: {{max_length: 100000}}       # a full queue refuses publishes, and loses nothing
    # retry: none                        # the first failure parks
"""


@click.command()
@click.argument("file", type=click.Path(dir_okay=False), default="topology.yaml")
@click.option("--name", help="Give the topology this name. Default: the name of the directory.")
def init(file: str, name: str | None) -> None:
    """Write a starter topology file, and its JSON Schema beside it for the editor.

    Existing files are never overwritten. FILE defaults to topology.yaml.
    """
    from amqpflow.errors import RefusedError, UsageError
    from amqpflow.topology.check import check_files
    from amqpflow.topology.language.json_schema import schema_text

    path = Path(file)
    wanted = name if name is not None else _from_directory(path)
    text = _STARTER.format(name=wanted)
    if errors := check_files([(file, text.encode())], {}).errors:
        raise UsageError(
            f"{wanted!r} cannot be a topology's name: {errors[0].message}", hint="give another name with --name"
        )
    schema = path.with_name(_SCHEMA)
    try:
        with path.open("x", encoding="utf-8") as created:
            created.write(text)
        click.echo(f"Written: {safe(path)}", err=True)
        if not schema.exists():
            with schema.open("x", encoding="utf-8") as created:
                created.write(schema_text())
            click.echo(f"Written: {safe(schema)}", err=True)
    except FileExistsError as error:
        raise RefusedError(f"{error.filename} exists already and was not changed", hint="name another file") from None
    except OSError as error:
        raise UsageError(f"cannot write {error.filename}: {error.strerror}") from None
    click.echo(f"Next: amqpflow validate {safe(path)}, then amqpflow dev {safe(path)}", err=True)


def _from_directory(path: Path) -> str:
    """Return the name of the directory, made valid for a topology."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", path.absolute().parent.name.lower()).strip("-")
    return cleaned or "app"
