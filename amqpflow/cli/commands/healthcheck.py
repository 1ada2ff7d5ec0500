"""`amqpflow healthcheck`: ask a running service for its health, for exec probes."""

from __future__ import annotations

import http.client
import json

import click

from amqpflow.cli.options.quantities import DURATION_OR_SECONDS
from amqpflow.cli.safe import safe


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), envvar="AMQPFLOW_HEALTH_PORT", help="As given to `run`.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the service runs.")
@click.option("--live", is_flag=True, help="Ask whether its event loop turns, not whether every queue is consumed.")
@click.option(
    "--timeout",
    type=DURATION_OR_SECONDS,
    default="3s",
    show_default=True,
    metavar="DURATION",
    help="Fail without an answer after this time.",
)
def healthcheck(port: int | None, host: str, live: bool, timeout: float) -> int:
    """
    Ask the service started with `amqpflow run --health-port PORT` whether every queue is being consumed.

    Exit code 0 when it is, 1 when it is not or nobody answers; the reasons are printed.
    """
    from amqpflow.errors import UsageError

    if port is None:
        raise UsageError("which port?", hint="--port PORT or AMQPFLOW_HEALTH_PORT, as given to amqpflow run")
    if timeout < 0.1:
        raise UsageError("--timeout: at least 100ms")
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
