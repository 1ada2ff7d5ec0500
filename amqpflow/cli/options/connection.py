"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from amqpflow.cli.render import colors

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(dir_okay=True, path_type=str)
MANAGEMENT_URL = (
    "Use this management API. Default: $AMQPFLOW_MANAGEMENT_URL (not with --url), else derived from the AMQP URL."
)


def connection_options(function: F) -> F:
    """Add --url, --management-url and the TLS options; the command receives one `address: BrokerAddress`."""

    names = ("url", "management_url", "ca_file", "cert_file", "key_file", "insecure")

    @wraps(function)
    def with_address(*args: Any, **kwargs: Any) -> Any:
        from amqpflow.rabbitmq.address import resolve_address

        address = resolve_address(**{name: kwargs.pop(name) for name in names})
        silence_libraries()
        announce(address)
        return function(*args, address=address, **kwargs)

    for option in reversed(
        (
            click.option("--url", help="Connect to this AMQP URL. Default: $AMQPFLOW_URL, else guest on localhost."),
            click.option("--management-url", help=MANAGEMENT_URL),
            click.option("--ca-file", type=click.Path(), help="Verify the broker with these CA certificates."),
            click.option("--cert-file", type=click.Path(), help="Present this client certificate."),
            click.option("--key-file", type=click.Path(), help="Use this key for the client certificate."),
            click.option("--insecure", is_flag=True, help="Do not verify the broker's certificate."),
        )
    ):
        with_address = option(with_address)
    return with_address  # type: ignore[return-value]


def silence_libraries() -> None:
    """Keep logs off the terminal unless logging is configured: amqpflow reports errors itself, once and in one line."""
    import logging

    for name in ("aiormq", "aio_pika", "asyncio", "httpx2", "httpcore2", "amqpflow"):
        logging.getLogger(name).addHandler(logging.NullHandler())


def announce(address: BrokerAddress) -> None:
    """Report on standard error what is not obvious about the address."""
    if address.source in ("RABBITMQ_URL", "CLOUDAMQP_URL"):
        click.echo(f"Using {address.source}: {address.redacted}", err=True)
    if address.unused is not None:
        derived = " or ".join(address.management_candidates())
        click.echo(
            f"{address.unused} is not used, because --url is given: without --management-url the management API is "
            f"expected at {derived}.",
            err=True,
        )
    if address.insecure and address.tls:
        click.echo("Warning: --insecure: the broker's certificate is not verified.", err=True)
    files = [file for file in (address.ca_file, address.cert_file, address.key_file) if file]
    if files and not address.tls:
        from amqpflow.cli.safe import safe

        where = " for AMQP" if (address.management_url or "").startswith("https:") else ""
        click.echo(
            f"Warning: {', '.join(map(safe, files))}: not used{where}, since the URL is amqp:// (TLS is amqps://).",
            err=True,
        )


color_option = click.option(
    "--color",
    type=click.Choice(colors.CHOICES),
    default="auto",
    help="Color the output. NO_COLOR in the environment turns it off.",
)


def output_option(*formats: str) -> Callable[[F], F]:
    """Add -o/--output with the given formats, the first being the default."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Print in this format.",
    )
