"""Where a URL that may change comes from: a file, such as a mounted secret, or a function."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from amqpflow.errors import BrokerUnavailableError, UsageError

from .url import redact

UrlFunction: TypeAlias = Callable[[], str | Awaitable[str]]
"""Returns the AMQP URL. One that is not async is called in a thread, so it may block."""

Check: TypeAlias = Callable[[str, str], tuple[str, ...]]  #: text and source to URLs; raises UsageError

_LOOKS, _PAUSE = 5, 0.1  #: times and seconds; a file may be empty or half written so long while it is replaced
_FRESH = 1.0  #: seconds
_ANSWER_TIMEOUT = 10.0  #: seconds for a function, which may ask an identity provider
_HANGING_MOST = 10  #: calls of a function that were given up and have not ended
_SECRET = re.compile(r"(?is)(\bamqps?:/*).*@|\S*@")  # in a malformed URL, a password may hold anything


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlFile:
    """A file with a URL in it, which a secret store may replace at any time."""

    variable: str  #: without its _FILE
    path: str

    @property
    def name(self) -> str:
        return f"{self.variable}_FILE ({redact(self.path)})"

    def read(self) -> str:
        """Read the URL. Raises UsageError: the file cannot be read, or is empty."""
        try:
            text = Path(self.path).read_text(encoding="utf-8-sig").strip()
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or "it is not text"
            raise UsageError(
                f"{self.variable}_FILE: cannot read {redact(self.path)}: {why}",
                hint=f"a URL itself belongs into {self.variable}" if "://" in self.path else "",
            ) from None
        if not text:
            raise UsageError(f"{self.variable}_FILE: {redact(self.path)} is empty")
        return text

    async def current(self, check: Check) -> tuple[str, ...]:
        """Read the URLs that are in it now. What was written within the last second counts when it is read twice alike:
        the beginning of a URL may be a URL as well.

        Raises:
            BrokerUnavailableError: there are none, nor a moment later.
        """
        before: tuple[str, ...] = ()
        failed: UsageError | None = None
        for _ in range(_LOOKS):
            try:
                found, failed = check(self.read(), self.name), None
            except UsageError as error:
                failed = error
            else:
                if found == before or not self._was_just_written():
                    return found
                before = found
            await asyncio.sleep(_PAUSE)
        if failed is not None:
            raise BrokerUnavailableError(str(failed), hint=failed.hint)
        return before

    def _was_just_written(self) -> bool:
        try:
            return abs(time.time() - Path(self.path).stat().st_mtime) < _FRESH
        except OSError:
            return True


@dataclass(frozen=True, slots=True)
class UrlOf:
    """A function that returns the URL."""

    function: UrlFunction
    _calls: set[object] = field(default_factory=set, compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"{getattr(self.function, '__name__', type(self.function).__name__)}()"

    async def current(self, check: Check) -> tuple[str, ...]:
        """Call the function. Raises BrokerUnavailableError: it failed, took longer than 10 s, or returned no URL."""
        url: object = None
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT) as limit:
                url = self.function() if inspect.iscoroutinefunction(self.function) else await self._in_a_thread()
                if inspect.isawaitable(url):
                    url = await url
        except Exception as error:
            said = _SECRET.sub(lambda found: f"{found[1] or ''}***@", str(error))
            text = f"{type(error).__name__}: {said}".rstrip(": ")
            why = f"nothing within {_ANSWER_TIMEOUT:.0f} s" if limit.expired() else text
            raise BrokerUnavailableError(f"{self.name} returned no URL: {why}") from error
        if not isinstance(url, str):
            raise BrokerUnavailableError(f"{self.name} returned no URL: {type(url).__name__}")
        try:
            return check(url, f"what {self.name} returned")
        except UsageError as error:
            raise BrokerUnavailableError(str(error), hint=error.hint) from None

    async def _in_a_thread(self) -> str | Awaitable[str]:
        """Call it in a daemon thread: threads of the event loop's executor would keep an ending process until they
        return.

        Raises BrokerUnavailableError: 10 earlier calls have not returned yet.
        """
        if len(self._calls) >= _HANGING_MOST:
            raise BrokerUnavailableError(f"{len(self._calls)} earlier calls of {self.name} have not returned yet")
        loop, call = asyncio.get_running_loop(), object()
        answer: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

        def answered(result: Any, error: BaseException | None) -> None:
            if not answer.done():
                answer.set_result((result, error))  # as a value: a future cannot carry StopIteration

        def work() -> None:
            result, error = None, None
            try:
                result = self.function()
            except BaseException as raised:
                error = raised
            self._calls.discard(call)
            with suppress(RuntimeError):  # the loop has ended, and the caller with it
                loop.call_soon_threadsafe(answered, result, error)

        self._calls.add(call)
        try:
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(work,), name=f"amqpflow {self.name}", daemon=True).start()
        except BaseException:
            self._calls.discard(call)
            raise
        result, error = await answer
        if isinstance(error, StopIteration):
            raise RuntimeError("it raised StopIteration") from error
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]
