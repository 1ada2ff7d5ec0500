"""Threads for handlers that are not async.

A thread cannot be stopped. A call that nothing waits for any more, as after its timeout, still runs: it is overdue, and
keeps its thread until it ends. Others are called in fresh threads meanwhile, up to a bound; beyond it each overdue call
keeps a place of the handler's `concurrency`, and when all of them are kept so nothing can be called any more.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from .message import Message
from .turns import NotStarted, Turns, require_held

THREAD_NAME = "amqpflow handler"
SPARE = 10  #: fresh threads for overdue calls that a handler has at least

_EXHAUSTED = "all threads of its handler are overdue"
_Result = tuple[Any, BaseException | None]


def spare_threads(concurrency: int) -> int:
    """Return how many threads may replace those of overdue calls: as many as `concurrency`, and 10 at least."""
    return max(SPARE, concurrency)


@dataclass(slots=True, eq=False)
class Call:
    message: Message
    answer: asyncio.Future[_Result]
    since: float = field(default_factory=time.time)  #: seconds since the epoch
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    ended: bool = False


class Threads:
    """The threads of one handler.

    Args:
        size: how many calls run at once, those that are overdue not counted.
        spare: how many threads may be overdue before they are counted all the same.
    """

    def __init__(self, function: Callable[[Message], Any], size: int, queue: str, *, spare: int | None = None) -> None:
        self._function = function
        self._size = size
        self._spare = spare_threads(size) if spare is None else spare
        self._name = f"{THREAD_NAME} {queue}"
        self.turns = Turns()  #: of messages that wait for a thread
        self._taken = 0  # places that are reserved, or in which a call runs that is waited for
        self._jobs: SimpleQueue[Call | None] = SimpleQueue()
        self._alive = 0  # threads
        self._idle = 0  # threads that wait for a job
        self._closed = False
        self._overdue: dict[Call, None] = {}
        self.on_overdue: Callable[[Call], None] | None = None  #: called with a call that has become overdue
        self.on_ended: Callable[[Call], None] | None = None  #: called when an overdue call has ended after all
        self.available = asyncio.Event()  #: not set while nothing can be called: `exhausted`
        self.available.set()

    @property
    def overdue(self) -> tuple[Call, ...]:
        """Return calls that still run although nothing waits for them, the oldest first."""
        return tuple(self._overdue)

    @property
    def most(self) -> int:
        """Return how many calls may be overdue; then nothing can be called any more."""
        return self._size + self._spare

    @property
    def exhausted(self) -> bool:
        """Return whether all threads are overdue, and there are as many as there may be."""
        return len(self._overdue) >= self.most

    def _has_room(self) -> bool:
        return self._taken + max(0, len(self._overdue) - self._spare) < self._size

    async def acquire(self, message: Message) -> None:
        """Wait until a thread is free, and reserve it for the next `run`. Raises NotStarted: there will be none."""
        self.turns.require_open()
        if self.exhausted:
            raise NotStarted(_EXHAUSTED)
        if not self.turns and self._has_room():
            self._taken += 1
        else:
            await self.turns.wait(message, unused=self.release)

    def release(self) -> None:
        self._taken -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._has_room() and self.turns:
            self._taken += 1
            self.turns.give()

    async def run(self, message: Message) -> Any:
        """Call the function in the reserved thread. Cancelled, the call runs on and is overdue.

        Raises:
            NotStarted: the consumer does not hold the message any more.
            RuntimeError: no thread can be started.
        """
        call = Call(message, asyncio.get_running_loop().create_future())
        try:
            if not self._idle:
                threading.Thread(
                    target=self._work, args=(call.answer.get_loop(),), name=self._name, daemon=True
                ).start()
                self._alive += 1
                self._idle += 1
        except BaseException:
            self.release()
            raise
        self._idle -= 1
        self._jobs.put(call)
        try:
            result, error = await call.answer
            if isinstance(error, StopIteration):
                raise RuntimeError("the handler raised StopIteration") from error
            if error is not None:
                raise error
            return result
        except asyncio.CancelledError:
            if not call.ended:
                self._becomes_overdue(call)
            raise
        finally:
            # this frame is in the traceback: what it kept of the error would be a reference cycle
            result = error = call = None  # type: ignore[assignment]

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (call := self._jobs.get()) is not None:
            # handed over as a value: a future cannot carry StopIteration
            result: _Result
            try:
                require_held(call.message)
                result = call.context.run(self._function, call.message), None
            except BaseException as error:
                result = None, error
            try:
                loop.call_soon_threadsafe(self._ended, call, result)
            except RuntimeError:
                return  # the loop is gone, and all that waits with it
            del call, result

    def _becomes_overdue(self, call: Call) -> None:
        self._taken -= 1
        self._overdue[call] = None
        if self.exhausted:
            self.available.clear()
            self.turns.refuse(_EXHAUSTED)
        else:
            self._hand_out()
        if self.on_overdue is not None and not self._closed:
            self.on_overdue(call)

    def _ended(self, call: Call, result: _Result) -> None:
        call.ended = True
        self._idle += 1
        if call in self._overdue:
            del self._overdue[call]
            self.available.set()
            if self._alive > self._size + len(self._overdue) and not self._closed:
                self._idle -= 1  # another one has replaced it
                self._alive -= 1
                self._jobs.put(None)
            if self.on_ended is not None and not self._closed:
                self.on_ended(call)
        else:
            self._taken -= 1
        if not call.answer.done():
            call.answer.set_result(result)
        self._hand_out()

    def shutdown(self) -> None:
        """Let the threads end; one that is in a handler runs on to its end, and does not keep the process from its."""
        self._closed = True
        self.turns.close()
        for _ in range(self._alive):
            self._jobs.put(None)
        self._alive = 0
