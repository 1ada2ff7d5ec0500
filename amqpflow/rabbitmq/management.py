"""RabbitMQ's management API, the part that amqpflow uses. The only module that knows the HTTP client.

https://www.rabbitmq.com/docs/http-api-reference. What it refuses it mostly refuses with 401, not 403 (fact 11.11).
"""

from __future__ import annotations

import asyncio
import html
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx2

from amqpflow import __version__
from amqpflow.errors import AmqpflowError, BrokerError, ManagementUnavailable, PermissionDenied
from amqpflow.model.numbers import QueueNumbers
from amqpflow.model.resources import Binding, Exchange, Policy, Queue
from amqpflow.planning.observation import Depth

from . import decode
from .address import BrokerAddress
from .no_management import PATH_PREFIX, no_answer, not_rabbitmq
from .peer import Protocol, ask

CONNECT_TIMEOUT = 5.0  #: seconds; a derived URL may point to a port that a firewall swallows
ANSWER_TIMEOUT = 60.0  #: seconds; a list of 100,000 queues takes a while

_SINGLY = 20  # above that one list of the statistics of all queues is cheaper than a request for each

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Who answers: the broker's name and release, and what it can do."""

    product: str
    version: tuple[int, ...]
    cluster_name: str
    exchange_types: frozenset[str]
    user: str
    tags: frozenset[str]  #: of the user
    statistics: bool = True  #: False: they are switched off (management_agent.disable_metrics_collector)


class Management:
    """
    A client of the management API of one broker. Made by `open_management`; use as an async context manager.

    A password from a file or a function may expire while it is open: when RabbitMQ refuses the login, the password is
    read again, and the request is sent once more. So are TLS files, when no connection can be opened.
    """

    def __init__(self, address: BrokerAddress, url: str) -> None:
        self._address = address
        self._client, self._login = _client(address, url), address.management_credentials()
        self._left: list[httpx2.AsyncClient] = []  # with an earlier login; others may still await their answers
        self._renewing = asyncio.Lock()
        self.url = url
        self._statistics = True  # until the overview says otherwise

    async def __aenter__(self) -> Management:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        for client in (self._client, *self._left):
            await client.aclose()

    async def overview(self) -> Overview:
        """Needs the tag `management`; without it PermissionDenied says so. Whether there are statistics is kept."""
        found, user = await self._get("overview"), await self._get("whoami")
        overview = self._decoded(
            lambda entry: Overview(
                product=str(entry.get("product_name", "RabbitMQ")),
                version=decode.version(entry),
                cluster_name=str(entry.get("cluster_name", "")),
                exchange_types=frozenset(str(each["name"]) for each in entry["exchange_types"]),
                user=str(user["name"]),
                tags=decode.tags(user),
                statistics=entry.get("disable_stats") is not True,
            ),
            found,
        )
        self._statistics = overview.statistics
        return overview

    async def exchanges(self, vhost: str) -> tuple[Exchange, ...]:
        """All but the default exchange."""
        found = await self._list(decode.exchange, "exchanges", vhost, query={"disable_stats": "true"})
        return tuple(exchange for exchange in found if exchange.name)

    async def queues(self, vhost: str) -> tuple[Queue, ...]:
        """Without statistics: four to eight times cheaper, and never stale (facts 11.8, 11.9)."""
        query = {"disable_stats": "true", "columns": "name,durable,auto_delete,exclusive,type,arguments"}
        return await self._list(decode.queue, "queues", vhost, query=query)

    async def bindings(self, vhost: str) -> tuple[Binding, ...]:
        """All but those of the default exchange, which every queue has."""
        found = await self._get("bindings", vhost)
        return self._decoded(lambda entries: tuple(decode.binding(each) for each in entries if each["source"]), found)

    async def policies(self, vhost: str) -> tuple[Policy, ...]:
        return await self._list(decode.policy, "policies", vhost)

    async def operator_policies(self, vhost: str) -> tuple[Policy, ...]:
        return await self._list(decode.policy, "operator-policies", vhost)

    async def queue_statistics(self, vhost: str, name: str) -> Mapping[str, Any] | None:
        """
        One queue with its statistics (messages, messages_dlx, messages_delayed, consumers ...), None when missing.

        They lag behind: up to 5.5 s on classic queues, 9 s on quorum queues (fact 11.7).
        """
        try:
            found = await self._get("queues", vhost, name)
        except BrokerError as error:
            if error.code == 404:
                return None
            raise
        if not isinstance(found, dict):
            raise self._strange()
        return found

    async def queue_arguments(self, vhost: str, name: str) -> Mapping[str, Any] | None:
        """Return the arguments of one queue, None when it or its virtual host does not exist. Needs no statistics."""
        try:
            found = await self._get("queues", vhost, name, query={"disable_stats": "true", "columns": "arguments"})
        except BrokerError as error:
            if error.code == 404:
                return None
            raise
        return self._decoded(lambda entry: dict(entry["arguments"]), found)

    async def has_connection(self, client_property: str, value: str) -> bool:
        """
        Whether a connection with this client property is listed. It is after up to 5 s, without statistics never.

        A user who has the tag `management` alone sees the connections of that user.
        """
        found = await self._get("connections", query={"columns": "client_properties"})
        properties = self._decoded(lambda entries: [each.get("client_properties") or {} for each in entries], found)
        return any(each.get(client_property) == value for each in properties)

    async def vhost(self, vhost: str) -> Mapping[str, Any]:
        """
        What is known of a virtual host: default_queue_type, sums of messages; {} when it is not listed.

        From the list, which the tag `management` may read; of a single one only an administrator may.
        """
        found = await self._get("vhosts")
        return self._decoded(
            # one that is being deleted may be listed without its name
            lambda entries: next((each for each in entries if each.get("name") == vhost), {}),
            found,
        )

    async def retained(self, vhost: str) -> Mapping[str, int]:
        """
        Return the messages that RabbitMQ keeps because their dead-lettering does not succeed, by queue; up to 10 s old.

        The sums of the virtual host tell whether there are any, so that the statistics of all queues are asked for
        only then. A queue whose count is not known is missing, so the answer serves a warning and never a permission.
        """
        sums = await self.vhost(vhost)
        counts = [sums.get(f"messages{which}") for which in ("", "_ready", "_unacknowledged")]
        messages, ready, unacknowledged = (count if isinstance(count, int) else None for count in counts)
        if messages is None or ready is None or unacknowledged is None or messages <= ready + unacknowledged:
            return {}
        found = await self._get("queues", vhost, query={"columns": "name,messages_dlx"})
        return self._decoded(
            lambda entries: {
                each["name"]: each["messages_dlx"] for each in entries if isinstance(each.get("messages_dlx"), int)
            },
            found,
        )

    async def effective_policy(self, vhost: str, queue: str) -> Mapping[str, Any]:
        """What policies make of a queue, without statistics. RabbitMQ 4.3 and later says it at once (fact 11.8)."""
        found = await self._get("queues", vhost, queue, query={"disable_stats": "true"})
        return self._decoded(lambda entry: dict(entry["effective_policy_definition"] or {}), found)

    async def queue_numbers(self, vhost: str) -> Mapping[str, QueueNumbers]:
        """
        Return the statistics of all queues, by name, in one list; 2 to 9 s behind (fact 11.7).

        Where they are switched off, of each queue what its totals say (fact 11.26); everything else is None.
        """
        found = await self._get("queues", vhost, query=self._counting(decode.NUMBERS))
        return self._decoded(lambda entries: {str(each["name"]): decode.numbers(each) for each in entries}, found)

    async def depths(self, vhost: str, names: Collection[str]) -> Mapping[str, Depth]:
        """
        Return how many messages and consumers some queues have; those that are missing are left out.

        Statistics: up to 5.5 s old on classic queues, 9 s on quorum queues (fact 11.7). Where they are switched off,
        queue totals, which are there all the same: up to 5 s old, without consumers and bytes (fact 11.26).
        """
        if len(names) > _SINGLY or not self._statistics:
            found = await self._get("queues", vhost, query=self._counting(decode.DEPTH))
            wanted = frozenset(names)
            return self._decoded(lambda all_: {q["name"]: decode.depth(q) for q in all_ if q["name"] in wanted}, found)
        depths: dict[str, Depth] = {}
        for name in names:
            statistics = await self.queue_statistics(vhost, name)
            if statistics is not None:
                depths[name] = self._decoded(decode.depth, statistics)
        return depths

    def _counting(self, columns: Iterable[str]) -> Mapping[str, str]:
        """Return the query of a list of queues with counts: totals are there without statistics, too."""
        totals = {} if self._statistics else {"disable_stats": "true", "enable_queue_totals": "true"}
        return {"columns": ",".join(columns), **totals}

    async def global_parameters(self, prefix: str) -> Mapping[str, Any]:
        """Return the global parameters whose name begins so, with their values. Needs the tag `policymaker`."""
        found = await self._get("global-parameters")
        entries = self._decoded(lambda entries: [(each["name"], each["value"]) for each in entries], found)
        return {name: value for name, value in entries if str(name).startswith(prefix)}

    async def put_global_parameter(self, name: str, value: Mapping[str, Any]) -> None:
        """Create or replace a global parameter. Needs the tag `policymaker`."""
        await self._call("PUT", "global-parameters", name, body={"value": value})

    async def delete_global_parameter(self, name: str) -> None:
        """Needs the tag `policymaker`. One that is gone already is no error."""
        await self._gone("global-parameters", name)

    async def put_policy(self, vhost: str, policy: Policy) -> None:
        """Create or replace a policy. Needs the tag `policymaker`. Works within 7 to 38 ms (fact 11.6e)."""
        body = {
            "pattern": policy.pattern,
            "definition": dict(policy.definition),
            "priority": policy.priority,
            "apply-to": policy.apply_to,
        }
        await self._call("PUT", "policies", vhost, policy.name, body=body)

    async def delete_policy(self, vhost: str, name: str) -> None:
        """Needs the tag `policymaker`. A policy that is gone already is no error."""
        await self._gone("policies", vhost, name)

    async def create_vhost(self, vhost: str) -> None:
        """A virtual host in which our own user may do everything. Needs the tag `administrator`."""
        user = (await self._get("whoami"))["name"]
        await self._call("PUT", "vhosts", vhost, body={})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        await self._call("PUT", "permissions", vhost, user, body=everything)

    async def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host and all that is in it. Needs the tag `administrator`."""
        await self._gone("vhosts", vhost)

    async def _gone(self, *path: str) -> None:
        try:
            await self._call("DELETE", *path)
        except BrokerError as error:
            if error.code != 404:
                raise

    async def _get(self, *path: str, query: Mapping[str, str] | None = None) -> Any:
        return await self._call("GET", *path, query=query)

    async def _list(
        self, decoder: Callable[[Mapping[str, Any]], T], *path: str, query: Mapping[str, str] | None = None
    ) -> tuple[T, ...]:
        return self._decoded(lambda found: tuple(map(decoder, found)), await self._get(*path, query=query))

    def _decoded(self, decoder: Callable[[Any], T], found: Any) -> T:
        try:
            return decoder(found)
        except decode.Odd as error:
            raise ManagementUnavailable(
                f"the management API at {self.url} lists what cannot be read: {error}"
            ) from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise self._strange() from error

    async def _call(
        self, method: str, *path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        url = f"{self.url}/api/" + "/".join(quote(part, safe="") for part in path)
        try:
            response = await self._answer(method, url, query, body)
            if method == "GET" and response.status_code == 500 and not response.content:
                response = await self._answer(method, url, query, body)  # a queue was being deleted (fact 11.28)
        except httpx2.HTTPError as error:
            slow, speaks = isinstance(error, httpx2.TimeoutException), Protocol.UNKNOWN
            if isinstance(error, httpx2.ReadError | httpx2.ProtocolError):
                parts = urlsplit(self.url)
                port = parts.port or (443 if parts.scheme == "https" else 80)
                speaks = await ask(parts.hostname or "", port, tls=parts.scheme == "https")
            raise no_answer(self.url, error, slow=slow, speaks=speaks) from error
        if response.status_code >= 300:
            raise self._refused(response, path)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise self._strange() from error

    async def _answer(
        self, method: str, url: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> httpx2.Response:
        client = self._client
        try:
            response = await client.request(method, url, params=query, json=body)
        except httpx2.ConnectError:
            if not (self.url.startswith("https:") and await self._renewed(client, another_login=False)):
                raise
        else:
            if response.status_code != 401 or not await self._renewed(client, another_login=True):
                return response
        return await self._client.request(method, url, params=query, json=body)

    async def _renewed(self, client: httpx2.AsyncClient, *, another_login: bool) -> bool:
        """Whether there is another client than the one that failed: made with what the files and functions hold now."""
        async with self._renewing:
            if self._client is not client:
                return True
            now = await self._address.current_with_management()
            # a login for another broker is not for this one
            if self.url not in now.management_candidates():
                return False
            if another_login and now.management_credentials() == self._login:
                return False
            self._left.append(client)
            self._client, self._login = _client(now, self.url), now.management_credentials()
            return True

    def _strange(self) -> ManagementUnavailable:
        return ManagementUnavailable(f"what answers at {self.url} is not RabbitMQ's management API")

    def _refused(self, response: httpx2.Response, path: tuple[str, ...]) -> AmqpflowError:
        reason = _reason(response)
        if response.status_code == 500 and not response.content:
            return BrokerError(
                f"the management API at {self.url} failed on {' '.join(path)} (HTTP 500)",
                code=500,
                hint="RabbitMQ cannot list an object whose name or routing key is not text, which its HTTP API lets "
                "anyone create; its log names the request",
            )
        if reason is None:
            return not_rabbitmq(self.url, response.status_code, response.headers.get("location", ""))
        if response.status_code in (401, 403):
            return self._denied(reason, path)
        where = " ".join(path)
        hint = ""
        if response.status_code == 404:
            hint = "a proxy in between that decodes %2F gives the same answer"
            if path == ("whoami",):
                hint = PATH_PREFIX
        return BrokerError(f"the management API refused {where}: {reason}", code=response.status_code, hint=hint)

    def _denied(self, reason: str, path: tuple[str, ...]) -> AmqpflowError:
        where = f"the management API at {self.url}"
        if reason == "Not management user":
            return PermissionDenied(
                f"{where} refuses this user: it has no management tag", hint="rabbitmqctl set_user_tags USER management"
            )
        if "virtual host" in reason:
            return PermissionDenied(f"{where} refuses this user access to the virtual host {path[1]}")
        if "object" in reason:
            tag = "policymaker" if path[0] in ("policies", "parameters", "global-parameters") else "administrator"
            return PermissionDenied(
                f"{where} refuses this user: it has no {tag} tag", hint=f"rabbitmqctl set_user_tags USER {tag}"
            )
        return PermissionDenied(f"{where} refuses the user or the password")


async def open_management(address: BrokerAddress) -> Management:
    """
    Reach the management API of a broker, trying the URLs of `address.management_candidates()` in order.

    Raises:
        PermissionDenied: it answers, but the user lacks the tag `management`, or the password is wrong there.
        ManagementUnavailable: none of the URLs answers as RabbitMQ's management API.
        TlsFailed: a certificate or key file cannot be read.
        BrokerUnavailable: a file or a function has no URL now.
    """
    failures: list[AmqpflowError] = []
    address = await address.current_with_management()
    for url in address.management_candidates():
        management = Management(address, url)
        try:
            await management._get("whoami")
        except BaseException as error:
            await management.close()
            if not isinstance(error, ManagementUnavailable | BrokerError):
                raise
            failures.append(error)
            continue
        return management
    text = "; ".join(map(str, failures))
    raise ManagementUnavailable(text, hint=next((each.hint for each in failures if each.hint), ""))


def _client(address: BrokerAddress, url: str) -> httpx2.AsyncClient:
    verify: ssl.SSLContext | bool = address.ssl_context() if url.startswith("https:") else False
    return httpx2.AsyncClient(
        auth=httpx2.BasicAuth(*address.management_credentials()),
        verify=verify,
        timeout=httpx2.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT),
        trust_env=False,  # a proxy, or a password from ~/.netrc, is not for a broker we reach without
        headers={"user-agent": f"amqpflow/{__version__}", "accept": "application/json", "accept-encoding": "identity"},
    )


def _reason(response: httpx2.Response) -> str | None:
    """RabbitMQ's own words; None when the answer is not RabbitMQ's. 3.10 escapes them for HTML."""
    try:
        body = response.json()
        reason = body.get("reason") or body.get("error")
    except (ValueError, AttributeError):
        return None
    return " ".join(html.unescape(str(reason)).split()) if reason else None
