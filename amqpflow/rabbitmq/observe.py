"""Read a virtual host: through the management API where there is one, else over AMQP alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from amqpflow.errors import ManagementUnavailableError, PermissionDeniedError, RefusedError
from amqpflow.model.resources import BrokerState, Exchange, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.compare.additions import required_objects
from amqpflow.planning.values.manifest import (
    Absent,
    Damaged,
    Manifest,
    Recorded,
    UnreadableManifestError,
    Unseen,
    from_json,
    parameter_name,
)
from amqpflow.planning.values.observation import Observation

from .address import BrokerAddress
from .connection import Connection, connect
from .management import Management, Overview, open_management
from .probe import Probe, UnknownExchangeTypeError, Unreadable
from .same_broker import require_same_broker
from .url import COMMAND_HEARTBEAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker to administer: an AMQP connection, and its management API where there is one."""

    address: BrokerAddress
    connection: Connection
    management: Management | None
    overview: Overview | None
    source: str  #: the management API's URL, or why it is not used


@asynccontextmanager
async def open_broker(
    address: BrokerAddress, *, name: str = "amqpflow", use_management: bool = True
) -> AsyncIterator[Broker]:
    """Connect, and find the management API.

    A given management URL must work and belong to the same broker. A URL derived from the AMQP URL may be
    missing, or belong to another broker on the same host: then AMQP alone is used, and `source` says why.

    Args:
        address: the broker, with the virtual host to administer.
        name: what the management UI shows for the connection.
        use_management: False to use AMQP alone.

    Raises:
        AuthenticationError, VirtualHostMissingError, TlsError, BrokerUnavailableError: as `connect` does.
        ManagementUnavailableError, PermissionDeniedError: the given management URL does not work.
        RefusedError: the given management URL leads to another broker.
    """
    async with AsyncExitStack() as stack:
        address = replace(address, default_heartbeat=COMMAND_HEARTBEAT)
        connection = await stack.enter_async_context(await connect(address, name=name))
        address = connection.cluster
        management, overview, source = None, None, "AMQP alone was asked for"
        if use_management:
            try:
                management = await stack.enter_async_context(await open_management(address))
                overview = await management.overview()
                await require_same_broker(connection, management, overview)
                source = management.url
            except (ManagementUnavailableError, PermissionDeniedError, RefusedError) as error:
                if address.management_url is not None:
                    raise
                management, overview, source = None, None, str(error)
        yield Broker(address=address, connection=connection, management=management, overview=overview, source=source)


async def observe(desired: CompiledTopology, broker: Broker) -> Observation:
    """Read what the virtual host holds. Nothing is changed, nor created by accident.

    Raises:
        PermissionDeniedError: this user may not read it.
        BrokerError, BrokerUnavailableError, ManagementUnavailableError: reading failed.
    """
    if broker.management is not None and broker.overview is not None:
        return await _through_management(desired, broker, broker.management, broker.overview)
    return await _over_amqp(desired, broker)


async def _through_management(
    desired: CompiledTopology, broker: Broker, management: Management, overview: Overview
) -> Observation:
    vhost = broker.address.vhost
    try:
        async with asyncio.TaskGroup() as group:
            exchanges = group.create_task(management.exchanges(vhost))
            queues = group.create_task(management.queues(vhost))
            bindings = group.create_task(management.bindings(vhost))
            policies = group.create_task(management.policies(vhost))
            operator_policies = group.create_task(management.operator_policies(vhost))
            retained = group.create_task(management.retained(vhost))
            manifest = group.create_task(_manifest(desired, vhost, management, overview))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return replace(
        manifest.result(),
        product=overview.product,
        version=overview.version,
        vhost=vhost,
        state=BrokerState(
            exchanges={each.name: each for each in exchanges.result()},
            queues={each.name: each for each in queues.result()},
            bindings=bindings.result(),
            policies={each.name: each for each in policies.result()},
            operator_policies={each.name: each for each in operator_policies.result()},
        ),
        complete=True,
        source=broker.source,
        exchange_types=overview.exchange_types,
        retained=retained.result(),
        statistics=overview.statistics,
        user=overview.user,
        tags=overview.tags,
    )


async def _manifest(desired: CompiledTopology, vhost: str, management: Management, overview: Overview) -> Observation:
    """Return an observation of the manifest alone."""
    now_ms = int(time.time() * 1000)
    if not overview.tags & {"policymaker", "administrator"}:
        problem = f"the user {overview.user} lacks the policymaker tag, which reading and writing it requires"
        return Observation(manifest=Unseen(why=problem), now_ms=now_ms)
    found = await management.global_parameters(parameter_name(vhost, ""))
    value = found.get(parameter_name(vhost, desired.name))
    others = _others(desired, vhost, found)
    if value is None:
        return Observation(manifest=Absent(), others=others, now_ms=now_ms)
    try:
        manifest = from_json(value, vhost=vhost, topology=desired.name)
    except UnreadableManifestError as error:
        return Observation(manifest=Damaged(why=str(error), hint=error.hint), now_ms=now_ms)
    return Observation(manifest=Recorded(manifest=manifest), others=others, now_ms=now_ms)


def _others(desired: CompiledTopology, vhost: str, found: Mapping[str, Any]) -> tuple[Manifest, ...]:
    """Read the manifests of other topologies in the virtual host. What cannot be read has no owner here."""
    manifests = []
    for name, value in found.items():
        topology = name.removeprefix(parameter_name(vhost, ""))
        if topology != desired.name:
            with suppress(UnreadableManifestError):
                manifests.append(from_json(value, vhost=vhost, topology=topology))
    return tuple(manifests)


async def _over_amqp(desired: CompiledTopology, broker: Broker) -> Observation:
    probe = Probe(broker.connection)
    exchanges: dict[str, Exchange] = {}
    queues: dict[str, Queue] = {}
    unreadable: dict[tuple[str, str], str] = {}
    missing_types: set[str] = set()
    needed_exchanges, needed_queues = required_objects(desired)
    try:
        for name in sorted(needed_exchanges):
            if await probe.exchange_exists(name):
                exchanges[name] = Exchange(name=name, type="")
        for name in sorted(needed_queues):
            if await probe.queue_exists(name):
                queues[name] = Queue(name=name)
        for exchange in desired.desired.exchanges.values():
            try:
                match await probe.exchange(exchange):
                    case Exchange() as found:
                        exchanges[exchange.name] = found
                    case Unreadable(text=text):
                        unreadable["exchange", exchange.name] = text
            except UnknownExchangeTypeError:
                missing_types.add(exchange.type)
        for queue in desired.desired.queues.values():
            match await probe.queue(queue):
                case Queue() as found_queue:
                    queues[queue.name] = found_queue
                case Unreadable(text=text):
                    unreadable["queue", queue.name] = text
    finally:
        await probe.close()
    return Observation(
        product=broker.connection.product,
        version=broker.connection.version,
        vhost=broker.address.vhost,
        state=BrokerState(exchanges=exchanges, queues=queues),
        complete=False,
        source=broker.source,
        missing_types=frozenset(missing_types),
        unreadable=unreadable,
        user=broker.address.user,
    )
