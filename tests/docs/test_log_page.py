"""docs/reference/log.md has every line that a consumer logs at WARNING or above, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import get_type_hints

from amqpflow.model.event import EVENTS, ConnectionLost, Event, MessageParked, MessageRetried
from amqpflow.services.consuming import event_text

ROOT = Path(__file__).parents[2]
ENTRANCES = (
    "amqpflow.services.consuming.consumer",
    "amqpflow.services.publishing.publisher",
    "amqpflow.api.connections",
    "amqpflow.services.process.supervisor",
    "amqpflow.cli.commands.run",
)
LEVELS = {"warning": "WARNING", "error": "ERROR", "exception": "ERROR", "critical": "ERROR"}
EVENT_LOG = "amqpflow.services.consuming.event_log"
PLACEHOLDER = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[a-z]")


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found if found.exists() else None


def imported_by(module: str, tree: ast.Module, *, package: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")
            above = above[: len(above) - node.level + package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{each.name}" for each in node.names)


@cache
def modules_of_a_consumer() -> dict[str, ast.Module]:
    """Everything of the project that a consumer imports, also what it imports only when it needs it."""
    found: dict[str, ast.Module] = {}
    left = list(ENTRANCES)
    while left:
        module = left.pop()
        path = file_of(module) if module.partition(".")[0] == "amqpflow" else None
        if module in found or path is None:
            continue
        found[module] = ast.parse(path.read_text())
        left.extend(imported_by(module, found[module], package=path.name == "__init__.py"))
    return found


def loggers_of(tree: ast.Module) -> set[str]:
    """Names that a logger is assigned to."""
    return {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and "getLogger" in ast.unparse(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def calls() -> Iterator[tuple[str, int, str, ast.expr]]:
    """Module, line, method and first argument of every call of a logger that may write at WARNING or above."""
    for module, tree in modules_of_a_consumer().items():
        loggers = loggers_of(tree)
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            on = node.func.value
            if (
                (isinstance(on, ast.Name) and (on.id in loggers or on.id == "logging"))
                or "getLogger" in ast.unparse(on)
            ) and (node.func.attr in LEVELS or node.func.attr == "log"):
                yield module, node.lineno, node.func.attr, node.args[0]


def template(text: str) -> str:
    return PLACEHOLDER.sub("…", text).replace("%%", "%")


#: what the level depends on, where it is not that of the kind
FIELDS: dict[type[Event], tuple[dict[str, object], ...]] = {
    ConnectionLost: ({"purpose": "consumer"}, {"purpose": "retries"}),
    MessageRetried: ({"error": ValueError(), "error_type": "…"}, {}),
    MessageParked: ({}, {"reason": "parked", "detail": "…"}),
}
SEVERE = {30: "WARNING", 40: "ERROR"}


def logged_events() -> Iterator[tuple[str, str]]:
    """Level and text of every kind of event that is logged, with `…` for what differs."""
    for kind in EVENTS.values():
        if kind not in event_text.LEVELS:
            continue
        for more in FIELDS.get(kind, ({},)):
            event = placeholder(kind, **more)
            level = SEVERE.get(event_text.event_level(event), "")
            if level:
                text = event_text.event_text(event).replace("7s", "…").replace("attempt 1", "attempt …")
                yield level, text.replace(str(more.get("purpose", "…")), "…")
    for kind in (MessageRetried, MessageParked):
        text = event_text.left_out_text(kind, "…", "…", None, 1, 7.0)
        yield SEVERE[event_text.LEVELS[kind]], text.replace("7s", "…").replace(" 1 ", " … ")
    yield "ERROR", event_text.held_text("…", "…", 1, 7.0).replace("7s", "…").replace(" 1 ", " … ")


def placeholder(kind: type[Event], **more: object) -> Event:
    hints = get_type_hints(kind)
    values: dict[str, object] = {}
    for each in fields(kind):
        if each.name == "message_id" or hints[each.name] is str:
            values[each.name] = "…"
        else:
            values[each.name] = {int: 1, float: 7.0, bool: False}.get(hints[each.name])
    return kind(**{**values, **more})


def in_the_code() -> set[tuple[str, str]]:
    found = {
        (LEVELS[method], template(argument.value))
        for module, _, method, argument in calls()
        if isinstance(argument, ast.Constant) and method != "log" and module != EVENT_LOG
    }
    return found | set(logged_events())


def on_the_page() -> list[tuple[str, str]]:
    level, found = "", []
    for line in (ROOT / "docs/reference/log.md").read_text().splitlines():
        if line.startswith("## "):
            level = line[3:]
        elif row := re.match(r"\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", line):
            found.append((level, row[1]))
    return found


def test_the_page_has_every_line_that_a_consumer_logs_and_no_other() -> None:
    page, code = on_the_page(), in_the_code()
    assert len(code) > 30, "the calls were found"
    missing = "add what it means and what to do to docs/reference/log.md"
    assert sorted(code - set(page)) == [], missing
    assert sorted(set(page) - code) == [], "no code writes this any more"
    assert len(page) == len(set(page)), "a line stands there twice"


def test_every_line_has_a_literal_text_of_its_own() -> None:
    """Else nobody finds it, on this page or anywhere."""
    for module, line, method, argument in calls():
        if module == EVENT_LOG:
            continue  # its texts are those of events
        where = f"{module}:{line}"
        assert method != "log", f"{where}: name the level by the method"
        assert isinstance(argument, ast.Constant), f"{where}: use a literal text with %s"
        words = re.findall(r"[a-z]{2,}", template(argument.value))
        assert len(words) >= 2, f"{where}: {argument.value!r} says nothing by itself"
