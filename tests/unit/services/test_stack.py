"""Where an exception was raised, and what of its stack is kept."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amqpflow import Message, Outcome, Retry
from amqpflow.delivery.verdict import BadResult, CannotDecode, Failed, Verdict
from amqpflow.services.handling.handler import make_handler
from amqpflow.services.handling.invocation import HandlerInvoker
from amqpflow.services.handling.stack import defined_at, users_part
from tests.deliveries import delivery, incoming, routes

HERE = "tests/unit/services/test_stack.py"
MESSAGE = Message(incoming())


def called(function: Any, message: Message = MESSAGE, **options: Any) -> Any:
    usual: dict[str, Any] = {"concurrency": 1, "prefetch": None, "timeout": None, "keep_stack": True}
    handler = make_handler("orders", function, **{**usual, **options})

    async def run() -> Verdict:
        threads = handler.threads()
        try:
            return await HandlerInvoker(handler, routes(5000), asyncio.Event(), threads=threads).call(message)
        finally:
            if threads is not None:
                threads.shutdown()

    return asyncio.run(run())


def line_of(text: str, file: str = __file__) -> int:
    """The line of this file that ends with a comment."""
    return next(number for number, line in enumerate(Path(file).read_text().splitlines(), 1) if line.endswith(text))


def module(path: Path, source: str, name: str) -> types.ModuleType:
    """A module at a path of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    made = types.ModuleType(name)
    exec(compile(source, str(path), "exec"), made.__dict__)
    return made


# -- where


def total(order: dict[str, int]) -> int:
    return order["currency"] + 1  # the innermost line


async def charge(message: Message) -> None:
    total(message.json())


def charge_in_thread(message: Message) -> None:
    total(message.json())


@pytest.mark.parametrize("function", [charge, charge_in_thread, functools.partial(charge_in_thread)])
def test_the_place_is_the_innermost_line_of_the_user_s_code(function: Any) -> None:
    assert called(function).error.location == f"{HERE}:{line_of('# the innermost line')}"


def test_the_place_is_the_user_s_line_that_called_a_library() -> None:
    async def handler(message: Message) -> None:
        json.loads("{")  # the user's line

    assert called(handler).error.location == f"{HERE}:{line_of(chr(35) + ' the user' + chr(39) + 's line')}"


def test_the_place_of_an_undecodable_body_is_where_the_handler_asked_for_it() -> None:
    async def handler(message: Message) -> None:
        message.json()  # asks for it

    verdict = called(handler, Message(incoming(body=b"{no")))
    assert isinstance(verdict, CannotDecode)
    assert verdict.error.location == f"{HERE}:{line_of('# asks for it')}"


def test_the_place_of_a_timeout_is_where_the_handler_waited() -> None:
    async def slow(message: Message) -> None:
        await asyncio.sleep(30)  # waits here

    verdict = called(slow, timeout=0.01)
    assert (verdict.error.type, verdict.error.location) == ("TimeoutError", f"{HERE}:{line_of('# waits here')}")


def test_the_place_of_an_error_in_a_middleware_is_in_the_middleware() -> None:
    async def middleware(message: Message, call_next: Any) -> Outcome | None:
        raise OSError  # in the middleware

    assert called(charge, middlewares=[middleware]).error.location == f"{HERE}:{line_of('# in the middleware')}"


def test_the_place_of_a_bad_result_is_the_handler() -> None:
    async def handler(message: Message) -> Any:  # the handler
        return 5

    verdict = called(handler)
    assert isinstance(verdict, BadResult)
    assert verdict.location == f"{HERE}:{line_of('# the handler')}"


def test_a_member_of_a_group_has_a_place_of_its_own() -> None:
    async def task() -> None:
        raise OSError  # in the task

    async def handler(message: Message) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(task())

    assert called(handler).error.location == f"{HERE}:{line_of('# in the task')}"


def test_a_member_that_was_never_raised_was_raised_where_its_group_was() -> None:
    async def handler(message: Message) -> None:
        raise ExceptionGroup("two", [OSError(), KeyError()])  # the group

    verdict = called(handler)
    assert verdict.error.location == f"{HERE}:{line_of('# the group')}"
    assert len(verdict.error.fingerprint) == 16


SOURCE = """
import json
def inner(): return {}["sku"]
async def handler(message): inner()
async def lazy(message): json.loads("{")
"""


def test_installed_packages_are_not_the_user_s_code(tmp_path: Path) -> None:
    library = module(tmp_path / "lib/site-packages/framework/core.py", SOURCE, "framework.core")

    async def handler(message: Message) -> None:
        library.inner()  # calls a package

    assert called(handler).error.location == f"{HERE}:{line_of('# calls a package')}"


def test_a_service_that_is_installed_itself_is_the_user_s_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path / "lib/site-packages")
    service = module(tmp_path / "lib/site-packages/shop/service.py", SOURCE, "shop.service")
    assert called(service.handler).error.location == "shop/service.py:3"
    assert called(service.lazy).error.location == "shop/service.py:5"


def test_without_a_frame_of_the_user_it_is_the_innermost_at_all() -> None:
    assert re.search(r"json/__init__\.py:\d+$", called(json.loads).error.location)


def test_a_long_path_keeps_its_end(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*(["directory"] * 40)) / "service.py"
    location = called(module(deep, SOURCE, "service").handler).error.location
    assert location.startswith("…")
    assert location.endswith("/directory/service.py:3")
    assert len(location.encode()) <= 255


class Called:
    async def __call__(self, message: Message) -> None: ...


@pytest.mark.parametrize("function", [charge, functools.partial(charge), Called(), Called().__call__])
def test_a_handler_is_found_behind_what_wraps_it(function: Callable[..., Any]) -> None:
    assert str(defined_at(function)).startswith(f"{HERE}:")


def test_a_handler_without_python_code_has_no_place() -> None:
    assert defined_at(len) is None


# -- the stack


def test_a_stack_ends_with_the_error_and_has_no_frames_of_ours() -> None:
    async def middleware(message: Message, call_next: Any) -> Outcome | None:
        return await call_next(message)  # type: ignore[no-any-return]

    for function in (charge, charge_in_thread):
        stack = called(function, middlewares=[middleware], timeout=5).error.stack
        assert stack.startswith("Traceback (most recent call last):\n  File ")
        assert stack.endswith(
            f', in total\n    return order["currency"] + 1  # the innermost line\nKeyError: {"currency"!r}\n'
        )
        assert f"{Path('amqpflow', 'services')}" not in stack
        assert stack.count("File ") == 3


def test_an_error_that_amqpflow_raises_in_a_handler_is_at_the_handlers_line() -> None:
    async def handler(message: Message) -> Outcome:
        return Retry(after=-5)  # not a delay

    error = called(handler).error
    assert error.location == f"{HERE}:{line_of('# not a delay')}"
    assert f"{Path('amqpflow', 'model')}" not in error.stack


def test_of_a_deep_stack_the_innermost_frames_are_kept() -> None:
    source = "\n".join(f"def layer_{i}(): return layer_{i + 1}()" for i in range(400))
    scope: dict[str, Any] = {}
    exec(compile(source + "\ndef layer_400(): raise KeyError('inmost')", "/framework/layers.py", "exec"), scope)

    async def handler(message: Message) -> None:
        scope["layer_0"]()

    stack = called(handler).error.stack
    assert stack.endswith("in layer_400\nKeyError: 'inmost'\n")
    left_out = re.search(r"\[(\d+) frames left out\]", stack)
    assert left_out
    assert int(left_out[1]) == 402 - stack.count("File "), "the handler and 401 layers"
    assert 7500 < len(stack.encode()) <= 8192


def test_an_endless_recursion_is_told_in_a_few_lines() -> None:
    def deep(number: int) -> int:
        return deep(number + 1)

    async def handler(message: Message) -> None:
        deep(0)

    verdict = called(handler)
    assert isinstance(verdict, Failed)
    assert verdict.error.type == "RecursionError"
    stack = str(verdict.error.stack)
    assert re.search(r"\[Previous line repeated \d{3} more times\]\nRecursionError: ", stack)
    assert len(stack) < 1500


def test_causes_are_kept_with_how_they_are_linked() -> None:
    async def handler(message: Message) -> None:
        try:
            try:
                total({})
            except KeyError as error:
                raise ValueError("order 17") from error
        except ValueError:
            raise OSError("cannot answer")  # noqa: B904 - what happens to people

    stack = called(handler).error.stack
    ends = [line for line in stack.splitlines() if re.match(r"\w+Error|The above|During", line)]
    assert ends == [
        "KeyError: 'currency'",
        "The above exception was the direct cause of the following exception:",
        "ValueError: order 17",
        "During handling of the above exception, another exception occurred:",
        "OSError: cannot answer",
    ]


def test_the_stack_of_a_group_is_that_of_its_first_error_and_its_own() -> None:
    async def task() -> None:
        total({})

    async def handler(message: Message) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(task())

    stack = called(handler).error.stack
    assert stack.endswith("KeyError: 'currency'\n")
    assert "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n\nThe first exception of" in stack


class Loud(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_no_error_is_too_strange_for_a_stack() -> None:
    async def handler(message: Message) -> None:
        error = Loud()
        error.add_note("n" * 5000)
        error.__cause__ = RuntimeError("\ud800" * 100_000)
        error.__cause__.__cause__ = error
        raise error

    stack = called(handler).error.stack
    assert "Loud: <str() of the error raised RuntimeError>\n" in stack
    assert len(stack.encode()) <= 8192


# -- tracebacks


def test_a_traceback_begins_in_the_user_s_code() -> None:
    verdict = called(charge, timeout=5)
    at = users_part(verdict.error.raised.__traceback__)
    assert at is not None
    assert at.tb_frame.f_code is charge.__code__
    assert users_part(None) is None


def test_places_are_told_without_a_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Path:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "cwd", gone)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    place = called(module(Path("/tmp") / f"amqpflow-{delivery.__name__}.py", SOURCE, "m").handler).error.location
    assert place.endswith("/tmp/amqpflow-delivery.py:3")
