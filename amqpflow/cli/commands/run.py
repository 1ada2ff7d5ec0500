"""`amqpflow run MODULE:CONSUMER`: run a service's consumer."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from amqpflow.cli.options.quantities import DURATION
from amqpflow.services.consuming.event_log import FIELDS
from amqpflow.services.process.heartbeat import VARIABLE, WORKER

if TYPE_CHECKING:
    from amqpflow.services.consuming.consumer import Consumer


@click.command()
@click.argument("target", metavar="MODULE:CONSUMER")
@click.option("--app-dir", default=".", show_default=True, help="Import MODULE from this directory.")
@click.option(
    "--wait-for-topology",
    metavar="DURATION",
    type=DURATION,
    help="Wait this long for a topology that is not applied yet: 60s.",
)
@click.option(
    "--shutdown-timeout", metavar="DURATION", type=DURATION, help="Let started handlers finish within this time: 25s."
)
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Run this many processes.")
@click.option(
    "--health-port",
    type=click.IntRange(0, 65535),
    envvar="AMQPFLOW_HEALTH_PORT",
    help="Serve the probes /livez and /readyz on this port.",
)
@click.option("--health-host", help="Serve the probes on this interface. Default: all.")
@click.option(
    "--log-level",
    default="info",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Log from this level on.",
)
@click.option("--tracebacks", is_flag=True, help="Log handler failures with their traceback.")
@click.option(
    "--log-format",
    default="text",
    type=click.Choice(["text", "json"]),
    help="Log as text, or as one JSON object a line.",
)
def run(
    target: str,
    app_dir: str,
    wait_for_topology: float | None,
    shutdown_timeout: float | None,
    workers: int,
    health_port: int | None,
    health_host: str | None,
    log_level: str,
    tracebacks: bool,
    log_format: str,
) -> int:
    """Run the Consumer named CONSUMER in MODULE until SIGTERM or SIGINT.

    The first signal drains: started handlers finish, and all other messages are requeued. A second signal stops at
    once. With --workers several processes run it, and one that dies is restarted.
    """
    configure_logging(log_level, log_format)
    if workers > 1 and VARIABLE not in os.environ:
        return _supervise(workers, health_port, health_host)
    consumer = load_consumer(target, app_dir)
    consumer.tracebacks = consumer.tracebacks or tracebacks
    if wait_for_topology is not None:
        consumer.wait_for_topology = wait_for_topology
    if shutdown_timeout is not None:
        consumer.shutdown_timeout = shutdown_timeout
    if VARIABLE not in os.environ:  # a worker's health is told by the process that started it
        consumer.health_port, consumer.health_host = health_port, health_host
    consumer.run()
    return 0


def _supervise(workers: int, health_port: int | None, health_host: str | None) -> int:
    import asyncio

    from amqpflow.services.process.supervisor import Supervisor

    async def supervise() -> int:
        command = (sys.executable, "-m", "amqpflow", *sys.argv[1:])
        return await Supervisor(command, workers).run(health_port=health_port, health_host=health_host)

    return asyncio.run(supervise())


def load_consumer(target: str, app_dir: str) -> Consumer:
    """Import `module:attribute` and return the Consumer it names.

    Raises:
        UsageError: no such module or attribute, or it is no Consumer. An exception inside the module is its own bug
            and is shown with its traceback.
    """
    from amqpflow.errors import UsageError
    from amqpflow.services.consuming.consumer import Consumer

    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise UsageError(f"{target!r} is not MODULE:CONSUMER", hint="such as service:consumer")
    sys.path.insert(0, app_dir)
    try:
        module: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise UsageError(
            f"there is no module {module_name!r} in {app_dir}",
            hint="set the directory to import from with --app-dir",
        ) from error
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            named = [name for name, each in vars(module).items() if isinstance(each, Consumer)]
            hint = f"it has {', '.join(named)}" if named else f"it has no {Consumer.__name__} at all"
            raise UsageError(f"module {module_name!r} has no {attribute!r}", hint=hint)
        value = getattr(value, part)
    if not isinstance(value, Consumer):
        raise UsageError(f"{target} is a {type(value).__name__}, not an amqpflow.Consumer")
    return value


def configure_logging(level: str, form: str) -> None:
    """Log to standard error, as text or as one JSON object a line; never a body, never a header's value."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Text("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # what aiormq and aio-pika warn of is said once more, and clearer, by the consumer; at debug they write bodies
    for name in ("aiormq", "aio_pika", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING if level == "debug" else logging.CRITICAL)


class _Text(logging.Formatter):
    worker = os.environ.get(WORKER)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        from amqpflow.cli.safe import safe

        record.message = safe(record.message)
        line = super().formatMessage(record)
        if self.worker:
            line = f"{line} [worker {self.worker}]"
        queue = getattr(record, "queue", None)
        return f"{line} [{safe(queue)}]" if queue else line

    def format(self, record: logging.LogRecord) -> str:
        from amqpflow.cli.safe import safe

        # an exception's text may be a message's: nothing of it acts on a terminal or looks like a line of the log
        return safe(super().format(record), multiline=True).replace("\n", "\n    ")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        fields = ("event_name", *FIELDS)
        entry |= {name: value for name in fields if (value := getattr(record, name, None)) is not None}
        if worker := os.environ.get(WORKER):
            entry["worker"] = int(worker)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry).replace("\x7f", "\\u007f")  # the only control that ASCII JSON lets through
