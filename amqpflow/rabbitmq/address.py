"""Where the broker is and how to get in: URLs, secrets and TLS files, from flags and the environment.

No password ever leaves this module in clear but towards the broker: `str()` and `repr()` are redacted.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from amqpflow.errors import TlsFailed, WrongUsage

DEFAULT_URL = "amqp://guest:guest@localhost:5672/"
URL_VARIABLES = ("AMQPFLOW_URL", "RABBITMQ_URL", "CLOUDAMQP_URL")
MANAGEMENT_VARIABLE = "AMQPFLOW_MANAGEMENT_URL"
_PORTS = {"amqp": 5672, "amqps": 5671}
_SEPARATOR = re.compile(r"\s*,\s*(?=amqps?://)")  # a comma may be in a password
_USER = re.compile(r"(?:(?!%3a)[^:/?#@,;\s])+", re.IGNORECASE)  # as far as it is surely no password


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """One broker, or the nodes of one cluster: AMQP URLs, management URLs to try, TLS files."""

    url: str = field(repr=False)  #: amqp:// or amqps://, with user, password and virtual host
    others: tuple[str, ...] = field(default=(), repr=False)  #: of further nodes of its cluster, in order
    source: str  #: which flag or variable it came from
    management_url: str | None = field(default=None, repr=False)  #: given; None means derived
    unused: str | None = None  #: variable with a management URL that was ignored, since `url` was given explicitly
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
        path = "/" + quote(vhost, safe="")
        url, *others = (urlunsplit(urlsplit(each)._replace(path=path)) for each in (self.url, *self.others))
        return replace(self, url=url, others=tuple(others))

    @property
    def nodes(self) -> tuple[BrokerAddress, ...]:
        """Each node on its own, in the order to try them; one that stands alone is its only node."""
        if not self.others:
            return (self,)
        return tuple(replace(self, url=url, others=()) for url in (self.url, *self.others))

    def starting_with(self, number: int) -> BrokerAddress:
        """The same nodes, tried from another one on: so that many clients do not all go to the first."""
        urls = (self.url, *self.others)
        number %= len(urls)
        url, *others = urls[number:] + urls[:number]
        return replace(self, url=url, others=tuple(others))

    @property
    def redacted(self) -> str:
        """The URLs without passwords and without their queries, for people to read."""
        return ", ".join(map(redact, (self.url, *self.others)))

    def __str__(self) -> str:
        return self.redacted

    def management_candidates(self) -> tuple[str, ...]:
        """
        The management API's base URLs to try in order, without user and password.

        Given one: that alone; a path in front of `/api` is kept. Derived: amqps gives https on 443 and then 15671, amqp
        gives http on 15672. A password is never sent over http when AMQP was TLS.
        """
        if self.management_url:
            parts = urlsplit(self.management_url)
            host = parts.netloc.rpartition("@")[2]
            path = parts.path.rstrip("/").removesuffix("/api")
            return (urlunsplit((parts.scheme, host, path, "", "")),)
        return tuple(url for node in self.nodes for url in node._derived())

    def _derived(self) -> tuple[str, ...]:
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
    """
    A URL without its password and query, whether it is well-formed or not.

    All in front of the last @ is taken for user and password, since a password that was not percent-encoded moves the
    place where a parser sees the host; of that the user is shown.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        scheme, rest = "", url.strip()
    secret, _, where = rest.rpartition("@")
    user = _USER.match(secret)
    shown = f"{user[0]}:***@" if user else ""
    return f"{scheme}{separator}{shown}{re.split('[?#]', where)[0]}"


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

    Several URLs with commas between them are the nodes of one cluster: amqp://u:p@a/v,amqp://u:p@b/v.

    AMQPFLOW_MANAGEMENT_URL belongs to the URL of the environment: when `url` is given, it is ignored, and `unused` of
    the address names it. The management URL is then `management_url`, or derived from `url`.

    Each variable also exists as NAME_FILE, naming a file that holds the value (a mounted secret).

    Raises:
        WrongUsage: a URL that is none, or both a variable and its _FILE are set.
    """
    env = os.environ if environ is None else environ
    source, unused = "--url", None
    given = url is not None
    if url is None:
        for name in URL_VARIABLES:
            if (url := _variable(env, name)) is not None:
                source = name
                break
        else:
            url, source = DEFAULT_URL, "default"
    url, *others = _SEPARATOR.split(url)
    for each in (url, *others):
        _check(each, source, tuple(_PORTS))
    if len({each.partition(":")[0] for each in (url, *others)}) > 1:
        raise WrongUsage(f"{source} mixes amqp:// and amqps://", hint="the nodes of a cluster are reached alike")
    if management_url is None and given:
        unused = next((name for name in (MANAGEMENT_VARIABLE, f"{MANAGEMENT_VARIABLE}_FILE") if env.get(name)), None)
    elif management_url is None:
        management_url = _variable(env, MANAGEMENT_VARIABLE)
    if management_url is not None:
        _check(management_url, "the management URL", ("http", "https"))
        if url.startswith("amqps:") and management_url.startswith("http:"):
            raise WrongUsage(
                "the management URL is http while AMQP is TLS: the password would travel in clear",
                hint="give an https:// URL",
            )
    return BrokerAddress(
        url=url,
        others=tuple(others),
        source=source,
        management_url=management_url,
        unused=unused,
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
            why = (error.strerror if isinstance(error, OSError) else None) or "it is not text"
            raise WrongUsage(
                f"{name}_FILE: cannot read {redact(file)}: {why}",
                hint=f"a URL itself belongs into {name}" if "://" in file else "",
            ) from None
    return value or None


def _check(url: str, source: str, schemes: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ","
        valid = parts.scheme in schemes and "," not in host and (parts.port is None or parts.port > 0)
        # what a parser takes for path, query or fragment is the rest of a password that has a / ? or # in it
        valid = valid and "@" not in parts.path + parts.query + parts.fragment
    except ValueError:
        valid = False
    if not valid:
        raise WrongUsage(
            f"{source} is not a URL of the form {schemes[0]}://USER:PASSWORD@HOST:PORT"
            + ("/VHOST" if "amqp" in schemes else ""),
            hint="characters such as / @ # in a password or a virtual host must be percent-encoded",
        )
