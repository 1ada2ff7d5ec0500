"""Where the broker is and how to get in: URLs, secrets and TLS files, from flags and the environment.

No password ever leaves this module in clear but towards the broker: `str()` and `repr()` are redacted.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from amqpflow.errors import TlsFailed, WrongUsage

DEFAULT_URL = "amqp://guest:guest@localhost:5672/"
URL_VARIABLES = ("AMQPFLOW_URL", "RABBITMQ_URL", "CLOUDAMQP_URL")
_PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """One broker: AMQP URL, management URLs to try, TLS files."""

    url: str = field(repr=False)  #: amqp:// or amqps://, with user, password and virtual host
    source: str  #: which flag or variable it came from
    management_url: str | None = field(default=None, repr=False)  #: given; None means derived
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure: bool = False  #: TLS without verification, said on every run

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def user(self) -> str:
        return unquote(self.parts.username or "guest")

    @property
    def password(self) -> str:
        return unquote(self.parts.password or "guest")

    @property
    def host(self) -> str:
        return self.parts.hostname or "localhost"

    @property
    def port(self) -> int:
        return self.parts.port or _PORTS[self.parts.scheme]

    @property
    def tls(self) -> bool:
        return self.parts.scheme == "amqps"

    @property
    def vhost(self) -> str:
        """The virtual host in the URL: no path and `/` both mean the virtual host `/`, as RabbitMQ's clients do."""
        return unquote(self.parts.path[1:]) or "/"

    def with_vhost(self, vhost: str) -> BrokerAddress:
        """The same broker, another virtual host."""
        from dataclasses import replace

        path = "/" + quote(vhost, safe="")
        return replace(self, url=urlunsplit(self.parts._replace(path=path)))

    @property
    def redacted(self) -> str:
        """The URL without its password and without its query, for people to read."""
        return redact(self.url)

    def __str__(self) -> str:
        return self.redacted

    def management_candidates(self) -> tuple[str, ...]:
        """
        The management API's base URLs to try in order, without user and password.

        Given one: that alone. Derived: amqps gives https on 443 and then 15671, amqp gives http on 15672. A password
        is never sent over http when AMQP was TLS.
        """
        if self.management_url:
            parts = urlsplit(self.management_url)
            host = parts.netloc.rpartition("@")[2]
            return (urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")),)
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.tls:
            return (f"https://{host}", f"https://{host}:15671")
        return (f"http://{host}:15672",)

    def management_credentials(self) -> tuple[str, str]:
        """User and password for the management API: those in its URL, else AMQP's."""
        if self.management_url:
            parts = urlsplit(self.management_url)
            if parts.username:
                return unquote(parts.username), unquote(parts.password or "")
        return self.user, self.password

    def ssl_context(self) -> ssl.SSLContext:
        """
        The TLS settings for AMQP and for the management API: verifying, unless told otherwise.

        Raises:
            TlsFailed: a certificate or key file cannot be read.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(filter(None, (self.ca_file, self.cert_file, self.key_file)))
            raise TlsFailed(f"cannot load the TLS files ({files}): {error}") from error
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def redact(url: str) -> str:
    """A URL without its password and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}:***@" if parts.username else ""
    return urlunsplit((parts.scheme, user + host, parts.path, "", ""))


def resolve_address(
    url: str | None = None,
    management_url: str | None = None,
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    insecure: bool = False,
    environ: Mapping[str, str] | None = None,
) -> BrokerAddress:
    """
    Find the broker: what is given, else AMQPFLOW_URL, RABBITMQ_URL, CLOUDAMQP_URL, else guest on localhost.

    Each variable also exists as NAME_FILE, naming a file that holds the value (a mounted secret).

    Raises:
        WrongUsage: a URL that is none, or both a variable and its _FILE are set.
    """
    env = os.environ if environ is None else environ
    source = "--url"
    if url is None:
        for name in URL_VARIABLES:
            if (url := _variable(env, name)) is not None:
                source = name
                break
        else:
            url, source = DEFAULT_URL, "default"
    _check(url, source, tuple(_PORTS))
    if management_url is None:
        management_url = _variable(env, "AMQPFLOW_MANAGEMENT_URL")
    if management_url is not None:
        _check(management_url, "the management URL", ("http", "https"))
        if url.startswith("amqps:") and management_url.startswith("http:"):
            raise WrongUsage(
                "the management URL is http while AMQP is TLS: the password would travel in clear",
                hint="give an https:// URL",
            )
    return BrokerAddress(
        url=url,
        source=source,
        management_url=management_url,
        ca_file=ca_file or env.get("AMQPFLOW_CA_FILE"),
        cert_file=cert_file or env.get("AMQPFLOW_CERT_FILE"),
        key_file=key_file or env.get("AMQPFLOW_KEY_FILE"),
        insecure=insecure,
    )


def _variable(env: Mapping[str, str], name: str) -> str | None:
    value, file = env.get(name), env.get(f"{name}_FILE")
    if value and file:
        raise WrongUsage(f"both {name} and {name}_FILE are set", hint="unset one of them")
    if file:
        try:
            return Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise WrongUsage(f"{name}_FILE: cannot read {file}: {error}") from error
    return value or None


def _check(url: str, source: str, schemes: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise WrongUsage(
            f"{source} is not a URL of the form {schemes[0]}://USER:PASSWORD@HOST:PORT"
            + ("/VHOST" if "amqp" in schemes else ""),
            hint="characters such as / @ # in a password must be percent-encoded",
        )
