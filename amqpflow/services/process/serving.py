"""Run a process for its consumer: signals, the exit code, threads that do not end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from amqpflow.errors import UsageError
from amqpflow.model.safe import safe
from amqpflow.services.handling.exits import Exit, described, ends_the_process, left_a_handler_s_task
from amqpflow.services.handling.thread_pool import THREAD_NAME

from .health import Health, serve_health
from .heartbeat import report_to_parent
from .runnable import Runnable

log = logging.getLogger("amqpflow.consumer")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_stops: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}  # what a signal calls, by event loop


def run(consumer: Runnable) -> None:
    """Run a consumer: see `Consumer.run`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise UsageError("an event loop runs in this thread already", hint="await consumer.serve()")
    code = _served(consumer)
    if not _in_main_thread():
        return  # the rest of this process keeps running
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


def _served(consumer: Runnable) -> int:
    """Serve until it ends; returns the exit code.

    SystemExit or KeyboardInterrupt out of any task stops the event loop. From a task that a handler started, it is a
    failure of the message. From any other, it is the application's: started handlers finish first, as for a signal.
    """
    asked: Exit | None = None
    with asyncio.Runner() as runner:
        serving = runner.get_loop().create_task(serve(consumer))
        while True:
            try:
                runner.get_loop().run_until_complete(serving)
                return 0 if asked is None else _exit_code(asked)
            except asyncio.CancelledError:
                return 130
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


def health_of(consumer: Runnable) -> Health:
    """Return what probes are answered: ready when every queue is consumed and it is not about to stop."""
    problems = dict(consumer.problems)
    if consumer.stopping:
        problems["consumer"] = "it is stopping"
    elif not consumer.healthy and not problems:
        problems["consumer"] = "it is starting"
    return Health(ready=consumer.healthy and not consumer.stopping, problems=problems, live=consumer.live)


async def serve(consumer: Runnable) -> None:
    """Serve a consumer: see `Consumer.serve`."""
    consumer.require_not_running()
    serving = asyncio.current_task()
    at_once = False

    def stop() -> None:
        nonlocal at_once
        if consumer.stopping and serving is not None:
            log.warning("stopped at once; unsettled messages are delivered again")
            at_once = True
            serving.cancel()
        else:
            log.info("stopping; a second signal stops at once")
            consumer.stop_soon()

    probes = serve_health(consumer.health_port, consumer.health_host, partial(health_of, consumer))
    with _on_signals(stop):
        try:
            async with probes, report_to_parent(consumer) as report:
                await consumer.start()
                report()  # before its first message, which may be its last
                await consumer.wait()
                await consumer.stop()
        except asyncio.CancelledError:
            await consumer.abandon()
            if at_once:
                sys.exit(130)
            raise


@contextmanager
def _on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM and SIGINT call `stop`, beside those of others in this event loop; in the main thread alone."""
    if not _in_main_thread():
        log.info("no signal stops a consumer outside the main thread; stop_soon() does")
        yield
        return
    loop = asyncio.get_running_loop()
    stops = _stops.setdefault(loop, [])
    if not stops:
        for each in _SIGNALS:
            loop.add_signal_handler(each, lambda: [call() for call in tuple(stops)])
    stops.append(stop)
    try:
        yield
    finally:
        stops.remove(stop)
        if not stops:
            del _stops[loop]
            for each in _SIGNALS:
                loop.remove_signal_handler(each)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
