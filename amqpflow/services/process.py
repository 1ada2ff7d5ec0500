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

from amqpflow.model.safe import safe

from .exits import Exit, described, ends_the_process, left_a_handler_s_task
from .health import Health, serve_health
from .threads import THREAD_NAME
from .worker_status import told

if TYPE_CHECKING:
    from .consumer import Consumer

log = logging.getLogger("amqpflow.consumer")


def run(consumer: Consumer) -> None:
    """`Consumer.run`."""
    code = _served(consumer)
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


def _served(consumer: Consumer) -> int:
    """
    Serve until it ends; returns the exit code.

    An exit out of any task stops the event loop. One that a handler started has failed, and so has the message; any
    other is the application's wish to end: what has started is finished first, as for a signal.
    """
    asked: Exit | None = None
    with asyncio.Runner() as runner:
        serving = runner.get_loop().create_task(serve(consumer))
        while True:
            try:
                runner.get_loop().run_until_complete(serving)
                return 0 if asked is None else _exit_code(asked)
            except (SystemExit, KeyboardInterrupt) as error:
                if serving.done():
                    return _exit_code(error)
                if left_a_handler_s_task(error) and not ends_the_process(error):
                    log.warning("a task of a handler raised %s: the process continues", safe(described(error)))
                elif asked is None:
                    log.error("stopping, because the application raised %s", safe(described(error)))
                    asked = error
                    consumer.stop_soon()
                else:
                    serving.cancel()


def _exit_code(error: Exit) -> int:
    """Return what the process exits with, as Python does: a text is 1, and it was logged."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)


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
        async with probes, told(consumer) as tell:
            await consumer.start()
            tell()  # before its first message, which may be its last
            await consumer.wait()
            await consumer.stop()
    except asyncio.CancelledError:
        await consumer.abandon()
        sys.exit(130)
    finally:
        for each in signals:
            loop.remove_signal_handler(each)
