"""RabbitMQ's management API, the part that amqpflow uses. `ManagementHttp` sends the requests.

https://www.rabbitmq.com/docs/http-api-reference. What it refuses it mostly refuses with 401, not 403 (fact 11.11).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from amqpflow.errors import AmqpflowError, BrokerError, ManagementUnavailableError
from amqpflow.model.queue_stats import QueueStats
from amqpflow.model.resources import Binding, Exchange, Policy, Queue
from amqpflow.planning.values.observation import Depth

from . import decode
from .address import BrokerAddress
from .management_http import ManagementHttp

_SINGLY = 20  # above that one list of the statistics of all queues is cheaper than a request for each

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The broker's name and release, and what it can do."""

    product: str
    version: tuple[int, ...]
    cluster_name: str
    exchange_types: frozenset[str]
    user: str
    tags: frozenset[str]  #: of the user
    statistics: bool = True  #: False: they are switched off (management_agent.disable_metrics_collector)


class Management:
    """A client of the management API of one broker. Made by `open_management`; use as an async context manager."""

    def __init__(self, address: BrokerAddress, url: str) -> None:
        self._http = ManagementHttp(address, url)
        self.url = url
        self._statistics = True  # until the overview says otherwise

    async def __aenter__(self) -> Management:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.close()

    async def overview(self) -> Overview:
        """Read the overview, also whether there are statistics. Raises PermissionDeniedError: no tag `management`."""
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
        """List all exchanges but the default one."""
        found = await self._list(decode.exchange, "exchanges", vhost, query={"disable_stats": "true"})
        return tuple(exchange for exchange in found if exchange.name)

    async def queues(self, vhost: str) -> tuple[Queue, ...]:
        """List the queues without statistics: four to eight times cheaper, and never stale (facts 11.8, 11.9)."""
        query = {"disable_stats": "true", "columns": "name,durable,auto_delete,exclusive,type,arguments"}
        return await self._list(decode.queue, "queues", vhost, query=query)

    async def bindings(self, vhost: str) -> tuple[Binding, ...]:
        """List all bindings but those of the default exchange, which every queue has."""
        found = await self._get("bindings", vhost)
        return self._decoded(lambda entries: tuple(decode.binding(each) for each in entries if each["source"]), found)

    async def policies(self, vhost: str) -> tuple[Policy, ...]:
        return await self._list(decode.policy, "policies", vhost)

    async def operator_policies(self, vhost: str) -> tuple[Policy, ...]:
        return await self._list(decode.policy, "operator-policies", vhost)

    async def queue_statistics(self, vhost: str, name: str) -> Mapping[str, Any] | None:
        """Return one queue with its statistics (messages, messages_dlx, messages_delayed, consumers ...), None when
        missing.

        They lag behind: up to 5.5 s on classic queues, 9 s on quorum queues (fact 11.7).
        """
        return await self._queue(vhost, name)

    async def queue_arguments(self, vhost: str, name: str) -> Mapping[str, Any] | None:
        """Return the arguments of one queue, None when it or its virtual host does not exist. Needs no statistics."""
        found = await self._queue(vhost, name, {"disable_stats": "true", "columns": "arguments"})
        return None if found is None else self._decoded(lambda entry: dict(entry["arguments"]), found)

    async def has_connection(self, client_property: str, value: str) -> bool:
        """Return whether a connection with this client property is listed. It appears within 5 s, without statistics
        never.

        A user who has the tag `management` alone sees the connections of that user.
        """
        found = await self._get("connections", query={"columns": "client_properties"})
        properties = self._decoded(lambda entries: [each.get("client_properties") or {} for each in entries], found)
        return any(each.get(client_property) == value for each in properties)

    async def vhost(self, vhost: str) -> Mapping[str, Any]:
        """Return the entry of a virtual host: default_queue_type, sums of messages; {} when it is not listed.

        It is read from the list, for which the tag `management` suffices; a single one takes an administrator.
        """
        found = await self._get("vhosts")
        return self._decoded(
            # a virtual host that is being deleted may be listed without its name
            lambda entries: next((each for each in entries if each.get("name") == vhost), {}),
            found,
        )

    async def retained(self, vhost: str) -> Mapping[str, int]:
        """Return the messages that RabbitMQ keeps because their dead-lettering does not succeed, by queue; up to 10 s
        old.

        The sums of the virtual host show whether there are any, so the statistics of all queues are asked for
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
        """Return what policies make of a queue, without statistics. RabbitMQ 4.3 knows it at once (fact 11.8)."""
        found = await self._get("queues", vhost, queue, query={"disable_stats": "true"})
        return self._decoded(lambda entry: dict(entry["effective_policy_definition"] or {}), found)

    async def queue_stats(self, vhost: str) -> Mapping[str, QueueStats]:
        """Return the statistics of all queues, by name, in one list; 2 to 9 s behind (fact 11.7).

        Where they are switched off, its totals (fact 11.26); everything else is None.
        """
        found = await self._get("queues", vhost, query=self._counting(decode.NUMBERS))
        return self._decoded(lambda entries: {str(each["name"]): decode.queue_stats(each) for each in entries}, found)

    async def depths(self, vhost: str, names: Collection[str]) -> Mapping[str, Depth]:
        """Return how many messages and consumers some queues have; those that are missing are left out.

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
        """Return the global parameters whose name begins with `prefix`, as values. Needs the tag `policymaker`."""
        found = await self._get("global-parameters")
        entries = self._decoded(lambda entries: [(each["name"], each["value"]) for each in entries], found)
        return {name: value for name, value in entries if str(name).startswith(prefix)}

    async def put_global_parameter(self, name: str, value: Mapping[str, Any]) -> None:
        """Create or replace a global parameter. Needs the tag `policymaker`."""
        await self._http.call("PUT", "global-parameters", name, body={"value": value})

    async def delete_global_parameter(self, name: str) -> None:
        """Delete a global parameter; one that is missing is not an error. Needs the tag `policymaker`."""
        await self._gone("global-parameters", name)

    async def put_policy(self, vhost: str, policy: Policy) -> None:
        """Create or replace a policy. Needs the tag `policymaker`. Works within 7 to 38 ms (fact 11.6e)."""
        body = {
            "pattern": policy.pattern,
            "definition": dict(policy.definition),
            "priority": policy.priority,
            "apply-to": policy.apply_to,
        }
        await self._http.call("PUT", "policies", vhost, policy.name, body=body)

    async def delete_policy(self, vhost: str, name: str) -> None:
        """Delete a policy; one that is missing is not an error. Needs the tag `policymaker`."""
        await self._gone("policies", vhost, name)

    async def _gone(self, *path: str) -> None:
        try:
            await self._http.call("DELETE", *path)
        except BrokerError as error:
            if error.code != 404:
                raise

    async def _get(self, *path: str, query: Mapping[str, str] | None = None) -> Any:
        return await self._http.call("GET", *path, query=query)

    async def _queue(self, vhost: str, name: str, query: Mapping[str, str] | None = None) -> Mapping[str, Any] | None:
        """Return the entry of a queue, None when it is missing."""
        try:
            found = await self._get("queues", vhost, name, query=query)
        except BrokerError as error:
            if error.code == 404:
                return None
            raise
        if not isinstance(found, dict):
            raise self._http.strange()
        return found

    async def _list(
        self, decoder: Callable[[Mapping[str, Any]], T], *path: str, query: Mapping[str, str] | None = None
    ) -> tuple[T, ...]:
        return self._decoded(lambda found: tuple(map(decoder, found)), await self._get(*path, query=query))

    def _decoded(self, decoder: Callable[[Any], T], found: Any) -> T:
        try:
            return decoder(found)
        except decode.UnreadableObjectError as error:
            raise ManagementUnavailableError(
                f"the management API at {self.url} returned a list that cannot be decoded: {error}"
            ) from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise self._http.strange() from error


async def open_management(address: BrokerAddress) -> Management:
    """Reach the management API of a broker, trying the URLs of `address.management_candidates()` in order.

    Raises:
        PermissionDeniedError: it answers, but the user lacks the tag `management`, or the password is wrong there.
        ManagementUnavailableError: none of the URLs answers as RabbitMQ's management API.
        TlsError: a certificate or key file cannot be read.
        BrokerUnavailableError: a file or a function has no URL now.
    """
    failures: list[AmqpflowError] = []
    address = await address.current_with_management()
    for url in address.management_candidates():
        management = Management(address, url)
        try:
            await management._get("whoami")
        except BaseException as error:
            await management.close()
            if not isinstance(error, ManagementUnavailableError | BrokerError):
                raise
            failures.append(error)
            continue
        return management
    text = "; ".join(map(str, failures))
    raise ManagementUnavailableError(text, hint=next((each.hint for each in failures if each.hint), ""))
