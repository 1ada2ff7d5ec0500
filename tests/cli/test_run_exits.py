"""`amqpflow run` when code of the application exits: a handler's exit is its failure, another one is carried out."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from amqpflow.rabbitmq.address import BrokerAddress
from tests.cli.service_runs import Run, running, scenario, service
from tests.shop import Shop
from tests.waiting import until

__all__ = ["service"]  # a fixture

EXITS = """\
import asyncio
import os
import signal
import sys

from amqpflow import Consumer, Message

consumer = Consumer("shop.yaml")
threaded = Consumer("shop.yaml")
asked = asyncio.Event()
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))


@consumer.on("consumer.started")
def watch(event):
    consumer.watching = asyncio.get_running_loop().create_task(exit_when_asked())


async def exit_when_asked():
    await asked.wait()
    sys.exit(7)


@consumer.on("message.acked")
def listener(event):
    if event.message_id == "listener":
        sys.exit("a listener")


async def child():
    sys.exit("why not")


def act(message):
    print(message.message_id, message.attempt, flush=True)
    if message.message_id == "exits":
        sys.exit("why not")
    if message.message_id == "interrupts":
        raise KeyboardInterrupt("why not")
    if message.message_id == "cancels":
        raise asyncio.CancelledError
    if message.message_id == "dies":
        os._exit(3)


@consumer.handler("orders")
async def handle(message: Message) -> None:
    if message.message_id == "starts a task":
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
    if message.message_id == "slow":
        await asyncio.sleep(1)
    if message.message_id == "asks":
        asked.set()
    if message.message_id == "signals":
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGUSR1)
    act(message)


@threaded.handler("orders")
def in_a_thread(message: Message) -> None:
    act(message)
"""

pytestmark = pytest.mark.one_broker


@pytest.fixture
def exits(service: Path) -> Path:
    (service / "exits.py").write_text(EXITS)
    return service


async def _ends_well(run: Run, scene: Shop, parked: set[str]) -> None:
    """The messages were retried and parked, and the process handles the next one and stops when it is asked."""
    await until(lambda: scene.depth("orders.parking"))
    await scene.publish("good")
    await run.says("good 1")
    run.process.send_signal(signal.SIGTERM)
    assert await run.ends() == 0, "".join(run.err)
    assert {each.header.properties.message_id for each in await scene.take("orders.parking")} == parked


@pytest.mark.parametrize("target", ["consumer", "threaded"])
@pytest.mark.parametrize("message", ["exits", "interrupts", "cancels"])
def test_an_exit_in_a_handler_is_retried_and_parked(
    vhost: BrokerAddress, exits: Path, target: str, message: str
) -> None:
    async def steps(scene: Shop) -> None:
        with running(exits, vhost, f"exits:{target}") as run:
            await scene.publish(message)
            await run.says(f"{message} 2")
            await _ends_well(run, scene, {message})
            if message != "cancels":
                first = next(line for line in run.err if " raised " in line)
                assert ("why not" in first, "exits.py:" in first, f"message {message}" in first) == (True,) * 3

    scenario(exits, vhost, steps)


def test_an_exit_in_a_task_that_a_handler_starts_is_its_failure(vhost: BrokerAddress, exits: Path) -> None:
    """asyncio lets it out of the event loop, past whatever awaits the task."""

    async def steps(scene: Shop) -> None:
        with running(exits, vhost, "exits:consumer") as run:
            await scene.publish("starts a task")
            await _ends_well(run, scene, {"starts a task"})
            assert any("task of a handler" in line and "why not" in line for line in run.err)

    scenario(exits, vhost, steps)


def test_an_exit_in_a_listener_disturbs_nothing(vhost: BrokerAddress, exits: Path) -> None:
    async def steps(scene: Shop) -> None:
        with running(exits, vhost, "exits:consumer") as run:
            await scene.publish("listener")
            await run.says("listener 1")
            await scene.publish("good")
            await run.says("good 1")
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends() == 0
            assert any("a listener failed on message.acked" in line for line in run.err)

    scenario(exits, vhost, steps)


@pytest.mark.parametrize("message", ["asks", "signals"])
def test_an_exit_that_the_application_asks_for_drains_and_is_the_exit_code(
    vhost: BrokerAddress, exits: Path, message: str
) -> None:
    """Outside of handlers: in a task of its own, in a signal handler of its own."""

    async def steps(scene: Shop) -> None:
        with running(exits, vhost, "exits:consumer") as run:
            await scene.publish("slow", message)
            await run.says(f"{message} 1")
            assert await run.ends() == 7, "".join(run.err)
            assert "slow 1\n" in run.out
            assert any("stopping" in line and "SystemExit: 7 (exits.py:" in line for line in run.err)
        assert await scene.depth("orders") == 0

    scenario(exits, vhost, steps)


def test_a_worker_that_dies_of_its_first_message_is_started_again(vhost: BrokerAddress, exits: Path) -> None:
    """It has consumed, so it could start, however soon that was."""

    async def steps(scene: Shop) -> None:
        await scene.publish("dies")
        with running(exits, vhost, "exits:consumer", "--workers", "2") as run:
            await until(lambda: any("exit code 3" in line for line in run.err))
            await scene.take("orders")
            await until(lambda: sum("consuming" in line for line in run.err) >= 3 or run.process.poll() is not None)
            run.process.send_signal(signal.SIGTERM)
            assert not any("cannot start" in line for line in run.err)
            await run.ends()

    scenario(exits, vhost, steps)
