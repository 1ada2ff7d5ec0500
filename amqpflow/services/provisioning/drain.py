"""Decide exactly whether a queue is empty, including unacked and retained messages.

A passive declare counts what is ready, now. Unacked messages and those that RabbitMQ retains or delays are in
statistics alone, which lag behind by up to 9 s (fact 11.7). So a queue counts as empty when nothing was ready, and
after that lag statistics show nothing and still nothing is ready. That proves it for a queue that nothing is bound to:
what would have been retained or unacked since was ready before. A queue without statistics is never taken for empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from amqpflow.errors import BrokerError, ManagementUnavailableError
from amqpflow.model.diagnostic import Severity
from amqpflow.model.queue_stats import QueueCounts
from amqpflow.model.units import plural
from amqpflow.planning.checks.message_loss import objection
from amqpflow.planning.values.changes import Drain
from amqpflow.planning.values.findings import Finding
from amqpflow.planning.values.observation import Depth
from amqpflow.planning.values.queue_risk import QueueRisk, Risk
from amqpflow.rabbitmq.observe import Broker

STATISTICS_LAG = 10.0  #: seconds
STATISTICS_APPEAR = 15.0  #: seconds to wait for the counts of a queue that has none yet
POLL = 0.5  #: seconds between two looks while waiting
GRACE = 60.0  #: seconds after the last message was due, until what is still there is held to stay

OnDrain = Callable[[str, int, int], None]
"""Told while waiting: what is waited for, messages gone, messages there were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """What keeps a queue from being deleted."""

    messages: int | None  #: ready, unacked, retained and delayed; None: nothing tells
    consumers: int = 0
    retained: int | None = 0  #: of them: dead-lettering does not succeed
    delayed: int | None = 0  #: of them: they wait in RabbitMQ's delayed retry

    def __str__(self) -> str:
        kept = f", {self.retained} of them retained because their dead-lettering fails" if self.retained else ""
        kept += f", {self.delayed} of them delayed for a retry" if self.delayed else ""
        parts = [f"{plural(self.messages, 'message')}{kept}"] if self.messages else []
        if self.messages is None:
            parts = ["an unknown number of messages (the management API has no counts of it)"]
        if self.consumers:
            parts.append(plural(self.consumers, "consumer"))
        return " and ".join(parts)


class DrainMonitor:
    """Looks at queues of one broker. `check` is called now and then while it waits, and may raise to stop it."""

    def __init__(self, broker: Broker, check: Callable[[], Awaitable[None]], on_drain: OnDrain | None = None) -> None:
        self._broker, self._check = broker, check
        self._on_drain = on_drain or (lambda *_: None)

    async def drained(self, drains: Sequence[Drain], *, wait: bool) -> dict[str, Remaining]:
        """Wait until queues that nothing is bound to are empty; return, by queue, what is still in it.

        `wait`: until all is due; else only for what statistics lag behind.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        until = {each.name: begun + each.delay_ms / 1000 + GRACE for each in drains}
        most: dict[str, int] = {}
        waiting = set(until)
        while waiting and wait:
            ready = {name: found.ready for name in sorted(waiting) if (found := await self.look(name)) is not None}
            most |= {name: max(count, most.get(name, 0)) for name, count in ready.items()}
            left, in_all = sum(ready.values()), sum(most.values())
            self._on_drain(f"{len(drains)} queues" if len(drains) > 1 else drains[0].name, in_all - left, in_all)
            waiting = {name for name, count in ready.items() if count and loop.time() < until[name]}
            if waiting:
                await self._check()
                await asyncio.sleep(POLL)
        while remaining := await self.remaining([*until]):
            # what expired just now may be on its way still, or is retained until the work queue takes it
            if not wait or all(loop.time() >= until[name] for name in remaining):
                return remaining
        return {}

    async def remaining(self, names: Collection[str]) -> dict[str, Remaining]:
        """Return what each queue holds, after statistics have caught up; empty and missing queues are left out."""
        management = self._broker.management
        if management is None:
            raise ManagementUnavailableError(f"nothing is deleted without the management API: {self._broker.source}")
        if not names:
            return {}
        found: dict[str, Remaining] = {}
        for name in names:
            if (looked := await self.look(name)) is not None and (looked.ready or looked.consumers):
                found[name] = Remaining(messages=looked.ready, consumers=looked.consumers)
        clean = [name for name in names if name not in found]
        if not clean:
            return found
        depths = await self.counted(clean)
        for name in clean:
            looked = await self.look(name)
            if looked is None:
                continue
            depth = depths.get(name, Depth(messages=None))
            consumers = max(looked.consumers, (depth.consumers or 0) if looked.consumers else 0)
            messages = looked.ready or None if depth.messages is None else max(looked.ready, depth.messages)
            if messages != 0 or consumers:
                found[name] = Remaining(
                    messages=messages, consumers=consumers, retained=depth.retained, delayed=depth.delayed
                )
        return found

    async def counted(self, names: Collection[str]) -> Mapping[str, Depth]:
        """Count what was in queues when this was called, or later. Counts that do not appear in time are None.

        A queue's new leader counts 0 until its first tick, 5 s later: counts hold when the same leader was there all
        the time. Raises ManagementUnavailableError.
        """
        management, vhost = self._broker.management, self._broker.address.vhost
        if management is None:
            raise ManagementUnavailableError(
                f"messages are not counted without the management API: {self._broker.source}"
            )
        before = await management.depths(vhost, names)
        await self._pause(STATISTICS_LAG)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STATISTICS_APPEAR
        while True:
            depths = await management.depths(vhost, names)
            unknown = [name for name, each in depths.items() if each.messages is None]
            if not unknown or loop.time() >= deadline:
                break
            await self._pause(POLL)
        moved = {name for name, each in depths.items() if name in before and before[name].leader != each.leader}
        return {name: Depth(messages=None) if name in moved else each for name, each in depths.items()}

    async def objections(self, stakes: Sequence[QueueRisk]) -> list[Finding]:
        """Count what changes of policies put at stake, and return why they must not be made now.

        What is unacked, retained or delayed, and bytes, are in statistics alone, which are waited for.
        """
        behind = {each.queue for each in stakes if each.delays or each.risk is not Risk.EXPIRES}
        depths = dict(await self.counted(sorted(behind))) if behind else {}
        found: list[Finding] = []
        for stake in stakes:
            looked = await self.look(stake.queue)
            if looked is None:
                continue
            depth = replace(depths.get(stake.queue, Depth(messages=None)), ready=looked.ready)
            finding = objection(stake, depth, counted=True)
            if finding is not None and finding.severity is Severity.ERROR:
                found.append(finding)
        return found

    async def look(self, name: str) -> QueueCounts | None:
        """Count a queue now; None when there is no such queue. Raises BrokerError: its node is down."""
        try:
            return await self._broker.connection.queue_counts(name)
        except BrokerError as error:
            if error.missing:
                return None
            raise

    async def _pause(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            await self._check()
            await asyncio.sleep(min(left, POLL))
