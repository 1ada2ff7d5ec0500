"""`amqpflow healthcheck`: ask a running service for its health, for exec probes."""

from __future__ import annotations

import http.client
import json

import click

from amqpflow.cli.options.quantities import DURATION_OR_SECONDS
from amqpflow.cli.safe import safe


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    envvar="AMQPFLOW_HEALTH_PORT",
    help="Connect to the --health-port of `amqpflow run`.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Connect to this host.")
@click.option("--live", is_flag=True, help="Ask only whether the event loop runs.")
@click.option(
    "--timeout",
    type=DURATION_OR_SECONDS,
    default="3s",
    show_default=True,
    metavar="DURATION",
    help="Fail if there is no answer within this time.",
)
def healthcheck(port: int | None, host: str, live: bool, timeout: float) -> int:
    """Ask the service started with `amqpflow run --health-port PORT` whether every queue is being consumed.

    Exit code 0: every queue is consumed. 1: one is not, or the service does not answer; the reasons are printed.
    """
    from amqpflow.errors import UsageError

    if port is None:
        raise UsageError("no port given", hint="give --port PORT or AMQPFLOW_HEALTH_PORT, as for amqpflow run")
    if timeout < 0.1:
        raise UsageError("--timeout must be at least 100ms")
    path = "/livez" if live else "/readyz"
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = json.loads(answer.read())
        status, problems = str(said["status"]), said.get("problems", {})
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError) as error:
        click.echo(f"no answer from {safe(host)}:{port}{path}: {safe(error)}", err=True)
        return 1
    finally:
        connection.close()
    click.echo(safe(status))
    for subject, why in problems.items() if isinstance(problems, dict) else ():
        click.echo(f"  {safe(subject)}: {safe(why)}")
    return 0 if answer.status == 200 else 1
