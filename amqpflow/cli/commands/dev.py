"""`amqpflow dev [FILE]`: start a private broker to develop against."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from amqpflow.cli.options.connection import FILE
from amqpflow.cli.safe import safe
from amqpflow.cli.topology_file import load

if TYPE_CHECKING:
    from amqpflow.node import RunningBroker
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.loading.topology import Topology

WARNING = (
    "Not for production: one node, no TLS, limits of a laptop.",
    "Development and tests only.",
)


@click.command()
@click.argument("file", type=FILE, required=False)
@click.option(
    "--keep", metavar="DIR", type=click.Path(path_type=Path), help="Keep the data in DIR, and reuse it on the next run."
)
@click.option("--url", help="Use this broker instead of a private one. $AMQPFLOW_URL is ignored.")
@click.option("--management-url", help="Use this management API. Default: derived from --url.")
@click.option(
    "--ready-file",
    metavar="PATH",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the export lines to this file when the broker is ready; removed when the broker ends.",
)
def dev(
    file: str | None, keep: Path | None, url: str | None, management_url: str | None, ready_file: Path | None
) -> None:
    """Start a private RabbitMQ, apply FILE to it, and print how to reach it.

    The broker comes from --url, an installed RabbitMQ, or Docker, in that order; never from AMQPFLOW_URL, which may
    name a shared broker. A private broker listens on loopback only and has a generated password. It ends, with all its
    data, on Ctrl-C (exit code 0), on SIGTERM, and if this process dies in any other way. --keep DIR keeps its data,
    name and password for the next run.
    """
    from amqpflow.node import start_broker

    topology = None if file is None else load(file)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    _say_what_is_ignored(url)
    context = start_broker(url, management_url, keep=keep)
    if context.found.origin == "docker":
        click.echo(f"Starting {context.found.description} (the first time, the image is pulled) ...", err=True)
    written: Path | None = None
    try:
        with context as broker:
            click.echo(_headline(broker, keep))
            applied = "" if topology is None else _apply(topology, broker)
            if broker.origin == "given":
                _write(ready_file, broker.address)
                click.echo(_guide(broker, file, applied))
                return
            with suppress(KeyboardInterrupt):  # its normal end
                written = _write(ready_file, broker.address)
                click.echo(_guide(broker, file, applied))
                context.wait()
            click.echo("\nStopping the broker ..." if keep else "\nStopping the broker and deleting its data ...")
    finally:
        if written is not None:
            written.unlink(missing_ok=True)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _say_what_is_ignored(url: str | None) -> None:
    """Report environment variables that dev ignores and other commands use."""
    variables = ["AMQPFLOW_MANAGEMENT_URL"] if url is not None else ["AMQPFLOW_URL", "AMQPFLOW_MANAGEMENT_URL"]
    names = [name for each in variables for name in (each, f"{each}_FILE") if os.environ.get(name)]
    if names:
        wish = "--management-url names another" if url is not None else "--url names a broker to use"
        click.echo(f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not used: {wish}.", err=True)


def _apply(topology: Topology, broker: RunningBroker) -> str:
    """Apply the topology and return one line about it. On a private broker the virtual host is created first."""
    import asyncio

    from amqpflow import apply
    from amqpflow.cli.render.plan_rows import counted
    from amqpflow.node import create_virtual_host

    if broker.origin != "given" and topology.vhost not in ("", "/"):
        create_virtual_host(broker.address, topology.vhost)
    report = asyncio.run(apply(topology, broker.address))
    if not report.done:
        return f"Applied {safe(topology.file)}: nothing to do."
    kinds = Counter(change.kind for change in report.done)
    counts = ", ".join(counted(count, kind) for kind, count in kinds.items())
    return f"Applied {safe(topology.file)}: {counts}."


def _headline(broker: RunningBroker, keep: Path | None) -> str:
    if broker.origin == "given":
        return f"Using {broker.description}. amqpflow did not start it and does not stop it."
    fate = f"its data stays in {safe(keep)}" if keep else "its data is deleted at the end; --keep DIR keeps it"
    return f"Ready in {broker.seconds:.1f} s: {broker.description}\n({fate})"


def _guide(broker: RunningBroker, file: str | None, applied: str) -> str:
    """Return where the broker is, how other terminals find it, and what to do next."""
    address = broker.address
    lines = ["", f"  AMQP        {address.redacted}"]
    if broker.origin != "given":
        lines += [
            f"  Management  {address.management_candidates()[-1]}/  (user {address.user}, password {address.password})",
            "",
            "In other terminals:",
            "",
            *exports(address),
        ]
    if applied:
        lines += ["", applied]
    lines += ["", "Next:  amqpflow run service:consumer" if file else "Next:  amqpflow apply topology.yaml"]
    if broker.origin != "given":
        lines += ["", *_box(WARNING), "", "Ctrl-C stops it."]
    return "\n".join(lines)


def exports(address: BrokerAddress) -> list[str]:
    """Return the export lines by which a shell and its amqpflow commands find the broker."""
    lines = [f"export AMQPFLOW_URL={quote(address.url)}"]
    if address.management_url:
        lines.append(f"export AMQPFLOW_MANAGEMENT_URL={quote(address.management_url)}")
    return lines


def _box(text: tuple[str, ...]) -> list[str]:
    width = max(map(len, text))
    rule = "+" + "-" * (width + 2) + "+"
    return [rule, *(f"| {line:<{width}} |" for line in text), rule]


def _write(file: Path | None, address: BrokerAddress) -> Path | None:
    """Write the export lines atomically, readable only by the owner: they contain the password."""
    from amqpflow.errors import UsageError
    from amqpflow.services.loading.durable_file import replacing

    if file is None:
        return None
    try:
        with replacing(file) as fd:
            os.write(fd, "".join(f"{line}\n" for line in exports(address)).encode())
    except OSError as error:
        raise UsageError(f"--ready-file: cannot write {file}: {error.strerror or error}") from error
    return file
