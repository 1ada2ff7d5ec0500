"""Where the broker is and how to get in: URLs, secrets and TLS files, from flags and the environment.

No password ever leaves this module in clear but towards the broker: `str()` and `repr()` are redacted.

A URL from a file or a function may change while it is used: a rotated password, a token that expired. `connect` and
`open_management` therefore ask `BrokerAddress.current` for each new connection. TLS files are read for each as well.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from amqpflow.errors import BrokerUnavailableError, TlsError, UsageError

from .url import DEFAULT_HEARTBEAT, PORTS, checked_management_url, checked_urls, heartbeat_of, redact
from .url_source import UrlFile, UrlFunction, UrlOf

DEFAULT_URL = "amqp://guest:guest@localhost:5672/"
URL_VARIABLES = ("AMQPFLOW_URL", "RABBITMQ_URL", "CLOUDAMQP_URL")
MANAGEMENT_VARIABLE = "AMQPFLOW_MANAGEMENT_URL"


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """One broker, or the nodes of one cluster: AMQP URLs, management URLs to try, TLS files."""

    #: amqp:// or amqps://, with user, password and virtual host; "" until the function that returns it was called
    url: str = field(repr=False)
    others: tuple[str, ...] = field(default=(), repr=False)  #: of further nodes of its cluster, in order
    source: str  #: which flag or variable it came from
    management_url: str | None = field(default=None, repr=False)  #: given; None means derived
    unused: str | None = None  #: variable with a management URL that was ignored, since `url` was given explicitly
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure: bool = False  #: TLS without verification, said on every run
    default_heartbeat: int = DEFAULT_HEARTBEAT  #: seconds, where the URL names none
    url_from: UrlFile | UrlOf | None = field(default=None, repr=False)  #: asked for `url` at each new connection
    management_url_from: UrlFile | None = field(default=None, repr=False)  #: the same for `management_url`
    chosen_vhost: str | None = field(default=None, repr=False)  #: of `with_vhost`, for a URL that is read again
    chosen_start: int = field(default=0, repr=False)  #: of `starting_with`, likewise

    async def current(self) -> BrokerAddress:
        """Return this address with the AMQP URLs that its file or its function has now.

        The management URL remains: AMQP connects without it, whatever became of its file. So do the virtual host of
        `with_vhost` and the order of `starting_with`.

        Raises:
            BrokerUnavailableError: a file cannot be read or holds no URL, or the function failed. A file that is
                replaced is read again for a moment before.
        """
        if self.url_from is None:
            return self
        url, *others = await self.url_from.current(checked_urls)
        address = replace(self, url=url, others=tuple(others), chosen_start=0)
        if self.chosen_vhost is not None:
            address = address.with_vhost(self.chosen_vhost)
        return address.starting_with(self.chosen_start)

    async def current_with_management(self) -> BrokerAddress:
        """Return `current`, with the management URL that its file has now.

        Raises:
            BrokerUnavailableError: as there, of both; or the password would travel in clear.
        """
        address = await self.current()
        if self.management_url_from is not None:
            (management_url,) = await self.management_url_from.current(checked_management_url)
            address = replace(address, management_url=management_url)
        if address is not self:
            try:
                _require_secret_way(address.url, address.management_url)
            except UsageError as error:
                raise BrokerUnavailableError(str(error), hint=error.hint) from None
        return address

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
        return self.parts.port or PORTS[self.parts.scheme]

    @property
    def heartbeat(self) -> int:
        """Seconds between heartbeats at most, `?heartbeat=` of the URL; 0 switches them off."""
        named = heartbeat_of(self.parts.query)
        return self.default_heartbeat if named is None else named

    @property
    def tls(self) -> bool:
        return self.parts.scheme == "amqps"

    @property
    def vhost(self) -> str:
        """The virtual host in the URL: no path and `/` both mean the virtual host `/`, as RabbitMQ's clients do."""
        return unquote(self.parts.path[1:]) or "/"

    def with_vhost(self, vhost: str) -> BrokerAddress:
        """Return the same broker with another virtual host."""
        if not self.url:
            return replace(self, chosen_vhost=vhost)
        path = "/" + quote(vhost, safe="")
        url, *others = (urlunsplit(urlsplit(each)._replace(path=path)) for each in (self.url, *self.others))
        return replace(self, url=url, others=tuple(others), chosen_vhost=vhost)

    @property
    def nodes(self) -> tuple[BrokerAddress, ...]:
        """Each node on its own, in the order to try them; one that stands alone is its only node."""
        if not self.others:
            return (self,)
        return tuple(replace(self, url=url, others=()) for url in (self.url, *self.others))

    def starting_with(self, number: int) -> BrokerAddress:
        """Return the same nodes in another order, so that many clients do not all start with the first."""
        urls, chosen = (self.url, *self.others), number
        number %= len(urls)
        url, *others = urls[number:] + urls[:number]
        return replace(self, url=url, others=tuple(others), chosen_start=self.chosen_start + chosen)

    def leads_to(self, node: BrokerAddress) -> bool:
        """Return whether a connection to `node` could be one to this address, whatever user and password are."""
        return self.vhost == node.vhost and any((each.host, each.port) == (node.host, node.port) for each in self.nodes)

    @property
    def redacted(self) -> str:
        """The URLs without passwords and without their queries, for people to read."""
        if not self.url:
            return f"the broker that {self.source} names"
        return ", ".join(map(redact, (self.url, *self.others)))

    def __str__(self) -> str:
        return self.redacted

    def management_candidates(self) -> tuple[str, ...]:
        """Return the management API's base URLs to try in order, without user and password.

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
        """Return user and password for the management API: those in its URL, else AMQP's."""
        if self.management_url:
            parts = urlsplit(self.management_url)
            if parts.username:
                return unquote(parts.username), unquote(parts.password or "")
        return self.user, self.password

    def ssl_context(self) -> ssl.SSLContext:
        """Return the TLS settings for AMQP and for the management API. They verify certificates unless `insecure` is
        set.

        Raises:
            TlsError: a certificate or key file cannot be read.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(filter(None, (self.ca_file, self.cert_file, self.key_file)))
            raise TlsError(
                f"cannot load the TLS files ({files}): {error}", hint="they must be readable and in PEM format"
            ) from error
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def resolve_address(
    url: str | UrlFunction | None = None,
    management_url: str | None = None,
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    insecure: bool = False,
    environ: Mapping[str, str] | None = None,
) -> BrokerAddress:
    """Find the broker: what is given, else AMQPFLOW_URL, RABBITMQ_URL, CLOUDAMQP_URL, else guest on localhost.

    Several URLs with commas between them are the nodes of one cluster: amqp://u:p@a/v,amqp://u:p@b/v.

    AMQPFLOW_MANAGEMENT_URL belongs to the URL of the environment: when `url` is given, it is ignored, and `unused` of
    the address names it. The management URL is then `management_url`, or derived from `url`.

    Each variable also exists as NAME_FILE, naming a file that holds the value (a mounted secret). It is read now, and
    again for each connection that it is for.

    `url` may be a function that returns the URL, async or not: it is called for each connection, and not now.

    Raises:
        UsageError: a URL is malformed, or both a variable and its _FILE are set.
    """
    env = os.environ if environ is None else environ
    source, unused = "--url", None
    given = url is not None
    urls: tuple[str, ...] = ("",)
    url_from: UrlFile | UrlOf | None = None
    management_url_from: UrlFile | None = None
    if callable(url):
        url_from = UrlOf(url)
        source = url_from.name
    else:
        if url is None:
            for name in URL_VARIABLES:
                url, url_from = _variable(env, name)
                if url is not None:
                    source = name
                    break
            else:
                url, source = DEFAULT_URL, "default"
        urls = checked_urls(url, url_from.name if url_from else source)
    if management_url is None and given:
        unused = next((name for name in (MANAGEMENT_VARIABLE, f"{MANAGEMENT_VARIABLE}_FILE") if env.get(name)), None)
    elif management_url is None:
        management_url, management_url_from = _variable(env, MANAGEMENT_VARIABLE)
    if management_url is not None:
        where = management_url_from.name if management_url_from else "the management URL"
        (management_url,) = checked_management_url(management_url, where)
    _require_secret_way(urls[0], management_url)
    return BrokerAddress(
        url=urls[0],
        others=urls[1:],
        source=source,
        management_url=management_url,
        unused=unused,
        ca_file=ca_file or env.get("AMQPFLOW_CA_FILE"),
        cert_file=cert_file or env.get("AMQPFLOW_CERT_FILE"),
        key_file=key_file or env.get("AMQPFLOW_KEY_FILE"),
        insecure=insecure,
        url_from=url_from,
        management_url_from=management_url_from,
    )


def _variable(env: Mapping[str, str], name: str) -> tuple[str | None, UrlFile | None]:
    value, path = env.get(name), env.get(f"{name}_FILE")
    if value and path:
        raise UsageError(f"both {name} and {name}_FILE are set", hint="unset one of them")
    if path:
        file = UrlFile(variable=name, path=path)
        return file.read(), file
    return value or None, None


def _require_secret_way(url: str, management_url: str | None) -> None:
    if management_url is not None and url.startswith("amqps:") and management_url.startswith("http:"):
        raise UsageError(
            "the management URL is http while AMQP is TLS: the password would travel in clear",
            hint="write https:// in the management URL",
        )
