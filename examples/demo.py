"""The whole of amqpflow in half a minute: apply, consume, retry, park, fix, replay, count.

    python examples/demo.py [AMQP-URL [MANAGEMENT-URL]]

Starts a private RabbitMQ, or uses the one at the given URL and cleans up there; AMQPFLOW_URL is ignored. Twelve orders
are published. Six are charged at once, three when the payment gateway answers again, and three are parked: for one the
gateway stays down, and for two the service has a bug. Then both are fixed, and the parked messages are replayed.

Exits with 1 when a single message is not where it must be.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Any

import aio_pika
from demo_timeline import Timeline, shown
from rich.console import Console
from rich.table import Table

from amqpflow import AmqpflowError, Consumer, Message, OutgoingMessage, Publisher, Topology
from amqpflow.node import RunningBroker, start_broker

ROOT = Path(__file__).parents[1]
FILE = "examples/demo.yaml"
QUEUE = "demo.payment"
PATIENCE = 30.0  #: seconds that the messages may take to settle before the demo has failed
EARLY = 0.002  #: seconds by which a wait may be measured too short

#: message id -> currency, and for how many attempts the gateway does not answer
ORDERS = {
    "order-01": ("EUR", 0),
    "order-02": ("EUR", 0),
    "order-03": ("USD", 0),
    "order-04": ("EUR", 0),
    "order-05": ("USD", 0),
    "order-06": ("EUR", 0),
    "order-07": ("EUR", 1),
    "order-08": ("USD", 2),
    "order-09": ("EUR", 3),
    "order-10": ("EUR", 99),
    "order-11": ("CHF", 0),
    "order-12": ("CHF", 0),
}
PARKED = {"order-10": "exhausted", "order-11": "permanent", "order-12": "permanent"}


@dataclass
class Service:
    """What a team would write: a handler. Here it is an object, so that it can be fixed while it runs."""

    rates: dict[str, float] = field(default_factory=lambda: {"EUR": 1.0, "USD": 0.9})
    gateway_is_repaired: bool = False

    async def charge(self, message: Message) -> None:
        order = message.json()
        amount = order["total"] * self.rates[order["currency"]]  # the bug: KeyError for CHF
        if message.attempt <= order["gateway_is_down_for"] and not self.gateway_is_repaired:
            raise TimeoutError(f"no answer to {amount:.2f} EUR")


# -- the steps


class DemoError(Exception):
    """A message is not where it must be."""


async def publish(address: str) -> None:
    messages = [
        OutgoingMessage(
            body=json.dumps({"total": 100, "currency": currency, "gateway_is_down_for": attempts}).encode(),
            exchange="demo.events",
            routing_key="order.placed",
            message_id=name,
        )
        for name, (currency, attempts) in ORDERS.items()
    ]
    async with Publisher(address) as publisher:
        results = await publisher.publish_many(messages)
    if failed := [result for result in results if isinstance(result, AmqpflowError)]:
        raise DemoError(f"not published: {failed}")


async def settled(consumer: Consumer, messages: int) -> None:
    """Until so many messages are handled or parked."""
    try:
        async with asyncio.timeout(PATIENCE):
            while consumer.totals["acked"] + consumer.totals["parked"] < messages:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise DemoError(f"after {PATIENCE:g} s: {dict(consumer.totals)}, expected {messages} acked or parked") from None


async def consume(topology: Topology, address: str, service: Service, timeline: Timeline, during: Any) -> None:
    """Run the service until all messages of the timeline are settled; `during` is awaited once it runs."""
    consumer = Consumer(topology, address)
    consumer.handler(QUEUE, concurrency=5)(timeline.watch(service.charge))
    log = logging.getLogger("amqpflow.consumer")
    log.addHandler(timeline)
    try:
        async with consumer:
            await during
            await settled(consumer, len(timeline.attempts))
    finally:
        log.removeHandler(timeline)


async def depths(topology: Topology, address: str) -> dict[str, int]:
    """Ready messages in every queue, as RabbitMQ counts them."""
    connection = await aio_pika.connect(address)
    async with connection, connection.channel() as channel:
        queues = [await channel.declare_queue(name, passive=True) for name in topology.compiled.desired.queues]
        return {queue.name: queue.declaration_result.message_count or 0 for queue in queues}


def problems(first: Timeline, parked: dict[str, str], second: Timeline, left: dict[str, int]) -> list[str]:
    """What is not as it must be, message by message; empty when nothing was lost, doubled or early."""
    found = []
    for name, (_, down) in ORDERS.items():
        expected = 0 if name in PARKED else 1
        if (times := first.successes()[name]) != expected:
            found.append(f"{name} was handled {times} times before the replay, not {expected}")
        if expected and (failures := len(first.attempts[name]) - 1) != down:
            found.append(f"{name} failed {failures} times, not {down}")
        if (times := first.successes()[name] + second.successes()[name]) != 1:
            found.append(f"{name} was handled {times} times in all, not once")
        for number, wait in enumerate(first.waits(name)):
            if wait < 2**number - EARLY:
                found.append(f"{name} came back after {wait:.3f} s, before the {2**number} s of its tier")
    if parked != PARKED:
        found.append(f"parked were {parked}, not {PARKED}")
    found.extend(f"{count} messages are left in {queue}" for queue, count in left.items() if count)
    return found


class Demo:
    """The steps in order, on one broker."""

    def __init__(self, console: Console, broker: RunningBroker, state: str) -> None:
        self.console = console
        self.address = broker.address
        self.topology = Topology.load(ROOT / FILE)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AMQPFLOW_")}
        self.environ = {**inherited, "AMQPFLOW_URL": broker.address.url, "XDG_STATE_HOME": state}
        if broker.address.management_url:
            self.environ["AMQPFLOW_MANAGEMENT_URL"] = broker.address.management_url

    def say(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/bold]")

    def command(self, *arguments: str) -> None:
        """Run a command as a user would, its output beneath it."""
        self.console.print(f"\n$ amqpflow {' '.join(arguments)}", style="cyan", highlight=False)
        sys.stdout.flush()
        if code := subprocess.run(self._argv(arguments), cwd=ROOT, env=self.environ, check=False).returncode:
            raise DemoError(f"amqpflow {' '.join(arguments)} ended with exit code {code}")

    def _argv(self, arguments: Collection[str]) -> list[str]:
        return [sys.executable, "-m", "amqpflow", *arguments]

    def parked(self) -> dict[str, str]:
        """Message id -> reason, as `amqpflow parked list -o json` has it."""
        run = subprocess.run(
            self._argv(("parked", "list", FILE, "-o", "json")),
            cwd=ROOT,
            env=self.environ,
            check=True,
            stdout=subprocess.PIPE,
        )
        return {each["message_id"]: each["reason"] for each in json.loads(run.stdout)["messages"]}

    def run(self) -> None:
        url = self.address.url
        self.say("1. A topology is applied: work queue, a retry queue for each delay, parking")
        self.command("apply", FILE)

        self.say(f"2. {len(ORDERS)} orders are published, and a service handles them")
        self.console.print("   Its payment gateway is down for some, and it has a bug. Waits are measured.\n")
        service, first = Service(), Timeline(ORDERS)
        with shown(self.console, first, ("1st", "after 1s", "2nd", "after 2s", "3rd", "after 4s", "4th")):
            asyncio.run(consume(self.topology, url, service, first, publish(url)))

        self.say("3. What could not be handled is parked, with its error")
        self.command("parked", "list", FILE)
        parked = self.parked()

        self.say("4. The gateway is repaired, the bug is fixed: the parked messages are replayed")
        service.rates["CHF"] = 1.05
        service.gateway_is_repaired = True
        self.command("replay", FILE, "--queue", QUEUE, "--yes")
        self.console.print()
        second = Timeline(parked)
        with shown(self.console, second, ("replayed",)):
            asyncio.run(consume(self.topology, url, service, second, asyncio.sleep(0)))

        self.say("5. Nothing is lost, nothing was handled twice")
        left = asyncio.run(depths(self.topology, url))
        self.console.print(self.account(first, parked, second, left))
        if found := problems(first, parked, second, left):
            raise DemoError("\n".join(found))

    def account(self, first: Timeline, parked: dict[str, str], second: Timeline, left: dict[str, int]) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(justify="right")
        retried = sum(len(made) > 1 and made[-1].succeeded for made in first.attempts.values())
        direct = first.successes().total() - retried
        for count, text in (
            (len(ORDERS), "published"),
            (direct, "handled at the first attempt"),
            (retried, "handled after retries"),
            (len(parked), "parked"),
            (second.successes().total(), "handled after the replay"),
            (sum(left.values()), f"left in the {len(left)} queues"),
        ):
            table.add_row(str(count), text)
        return table


async def remove(topology: Topology, address: str) -> None:
    """Delete what the demo created on a broker that is not its own."""
    connection = await aio_pika.connect(address)
    async with connection, connection.channel() as channel:
        for name in topology.compiled.desired.queues:
            await channel.queue_delete(name)
        for name in topology.compiled.desired.exchanges:
            await channel.exchange_delete(name)


async def present(topology: Topology, address: str) -> list[str]:
    """Queues and exchanges of the demo that are there before it begins."""
    found = []
    connection = await aio_pika.connect(address)
    async with connection:
        for name in (*topology.compiled.desired.queues, *topology.compiled.desired.exchanges):
            async with connection.channel() as channel:
                is_queue = name in topology.compiled.desired.queues
                with suppress(aio_pika.exceptions.ChannelNotFoundEntity):
                    await (channel.get_queue(name) if is_queue else channel.get_exchange(name))
                    found.append(name)
    return found


GO_ON = """
Go on with the example, each command in a terminal of its own:

  {cd}
  amqpflow dev topology.yaml         a private RabbitMQ, with the topology applied;
                                     run the export lines it prints in the others
  amqpflow run service:consumer      the service
  python publisher.py                some orders
  amqpflow parked list topology.yaml
  amqpflow replay topology.yaml --queue orders.payment

With a RabbitMQ of yours: export AMQPFLOW_URL=amqp://USER:PASSWORD@HOST/VHOST,
then `amqpflow apply topology.yaml`. README.md and docs/tutorial.md say more."""


def main() -> int:
    console = Console(highlight=False)
    try:
        context = start_broker(*sys.argv[1:3])
        verb = "Using" if context.found.origin == "given" else "Starting"
        console.print(f"{verb} {context.found.description} ...", markup=False)
        with context as broker, TemporaryDirectory(prefix="amqpflow-demo-") as state:
            demo = Demo(console, broker, state)
            given = broker.origin == "given"
            if given and (found := asyncio.run(present(demo.topology, broker.address.url))):
                raise DemoError(f"{broker.address} has {', '.join(found)} already, which the demo wants for itself")
            try:
                demo.run()
            finally:
                if given:
                    asyncio.run(remove(demo.topology, broker.address.url))
    except DemoError as failure:
        console.print(f"\nThe demo failed.\n{failure}", style="red", markup=False)
        return 1
    except AmqpflowError as error:
        console.print(f"\n{error}\n{error.hint}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nInterrupted.")
        return 130
    activate = Path(sys.prefix, "bin", "activate")
    inside = activate.is_relative_to(ROOT)
    script = quote(os.path.relpath(activate, ROOT / "examples" / "orders") if inside else str(activate))
    activated = f"; . {script}" if activate.exists() else ""
    console.print(GO_ON.format(cd=f"cd examples/orders{activated}"), markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
