"""A consumer as the purpose of a process: signals, the exit code, threads that do not end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

from .health import Health, serve_health
from .threads import THREAD_NAME
from .worker_status import told

if TYPE_CHECKING:
    from .consumer import Consumer

log = logging.getLogger("amqpflow.consumer")


def run(consumer: Consumer) -> None:
    """`Consumer.run`."""
    code = 0
    try:
        asyncio.run(serve(consumer))
    except SystemExit as stop:
        code = 130 if stop.code == 130 else 1
    for thread in threading.enumerate():
        if thread.name.startswith(THREAD_NAME):
            thread.join(0 if code else 0.2)
            if thread.is_alive():
                # Python would wait for it for ever, and a thread cannot be stopped
                log.warning("a handler thread is still running; the process ends without it")
                logging.shutdown()
                os._exit(code)
    if code:
        sys.exit(code)


def health_of(consumer: Consumer) -> Health:
    """What probes are told: ready when every queue is consumed and it is not about to stop."""
    problems = dict(consumer.problems)
    if consumer.stopping:
        problems["consumer"] = "it is stopping"
    elif not consumer.healthy and not problems:
        problems["consumer"] = "it is starting"
    return Health(ready=consumer.healthy and not consumer.stopping, problems=problems)


async def serve(consumer: Consumer) -> None:
    """`Consumer.serve`."""
    loop = asyncio.get_running_loop()
    serving = asyncio.current_task()
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        if consumer.stopping and serving is not None:
            log.warning("stopped at once; what was not settled comes again")
            serving.cancel()
        else:
            log.info("stopping; a second signal stops at once")
            consumer.stop_soon()

    for each in signals:
        loop.add_signal_handler(each, stop)
    try:
        probes = serve_health(consumer.health_port, consumer.health_host, partial(health_of, consumer))
        async with probes, told(consumer):
            await consumer.start()
            await consumer.wait()
            await consumer.stop()
    except asyncio.CancelledError:
        await consumer.abandon()
        sys.exit(130)
    finally:
        for each in signals:
            loop.remove_signal_handler(each)
