"""Show a plan with Terraform's symbols: dangerous steps first, then by work queue; unchanged objects are counted."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator

from amqpflow.cli.safe import safe, with_options
from amqpflow.planning.reports.consequences import Danger, replaced_queues
from amqpflow.planning.values.approvals import allow_flag
from amqpflow.planning.values.changes import Change
from amqpflow.planning.values.findings import Finding
from amqpflow.planning.values.plan import Plan

from .colors import paint
from .plan_rows import Group, Row, counted, listed, plan_groups, ranges

WIDTH = 120  #: where nobody says how wide the terminal is

_COLORS = {"+": "green", "~": "yellow", "-": "red", "-/+": "red", "?": "cyan", "=": "cyan", "…": "yellow"}
_KINDS = ("exchange", "queue", "binding", "policy", "manifest")
_WORDS = {  #: of an action: when it is done, and before
    "create": ("created", "to create"),
    "update": ("changed", "to change"),
    "delete": ("removed", "to remove"),
    "ensure": ("bound again", "to bind again"),
    "drain": ("drained", "to wait for"),
}


def plan_text(plan: Plan, *, color: bool, width: int = WIDTH) -> str:
    """Return the changes, then warnings and notes. `width` is that of the terminal, in columns."""
    text = _Text(plan, color, max(width, 40))
    return "\n".join(text.lines())


def plan_summary(plan: Plan) -> str:
    """Return one line: Plan: 15 to create (2 exchanges, 6 queues, 7 bindings), refused; 0 unchanged."""
    refused = Counter(each.ref.kind for each in _differing(plan))
    swapped = Counter(queue=len(plan.replaced))
    if plan.nothing_to_do and not plan.refusals:
        return _nothing_to_do(plan)
    replaced = len(replaced_queues(plan.changes))
    counts = _counts(plan.changes) - Counter({("create", "queue"): replaced, ("delete", "queue"): replaced})
    parts = [
        f"{sum(kinds.values())} {_WORDS.get(action, (action,))[-1]} ({_kinds(kinds)})"
        for action, kinds in _by_action(counts)
    ]
    if swapped["queue"]:
        parts.append(f"{swapped['queue']} to replace ({_kinds(swapped)})")
    if refused:
        parts.append(f"{sum(refused.values())} to replace ({_kinds(refused)}), which is refused")
    told = ", ".join(parts) or "nothing to do"
    nothing = " Refused: apply would do nothing." if plan.refusals else ""
    if plan.needs and not plan.refusals:
        flags = with_options(" ".join(allow_flag(need) for need in plan.needs))
        nothing = f" Apply asks first, or needs {flags}."
    return f"Plan: {told}; {len(plan.unchanged)} unchanged.{nothing}"


def applied_summary(plan: Plan, done: Iterable[Change]) -> str:
    """Return one line: Applied: 2 exchanges, 6 queues, 7 bindings created; 0 unchanged."""
    if plan.nothing_to_do:
        return _nothing_to_do(plan)
    parts = [f"{_kinds(kinds)} {_WORDS.get(action, (action,))[0]}" for action, kinds in _by_action(_counts(done))]
    return f"Applied: {'; '.join(parts) or 'nothing'}; {len(plan.unchanged)} unchanged."


def _counts(changes: Iterable[Change]) -> Counter[tuple[str, str]]:
    """Count each (action, kind); a manifest that is written before and after counts once."""
    counts = Counter((change.action, change.kind) for change in changes)
    for action in ("create", "update"):
        counts[action, "manifest"] = min(counts[action, "manifest"], 1)
    if counts["create", "manifest"]:
        del counts["update", "manifest"]
    return +counts


def _by_action(counts: Counter[tuple[str, str]]) -> Iterator[tuple[str, Counter[str]]]:
    for action in dict.fromkeys([*_WORDS, *(action for action, _ in counts)]):
        kinds = Counter({kind: count for (each, kind), count in counts.items() if each == action})
        if kinds:
            yield action, kinds


def _kinds(counts: Counter[str]) -> str:
    kinds = dict.fromkeys([*_KINDS, *sorted(counts)])
    return ", ".join(counted(counts[kind], kind) for kind in kinds if counts[kind])


def _differing(plan: Plan) -> list[Finding]:
    return list({each.ref: each for each in plan.refusals if each.code == "differs"}.values())


def _nothing_to_do(plan: Plan) -> str:
    bound = len(plan.changes)
    again = f" {bound} bindings, which cannot be read over AMQP, are bound again." if bound else ""
    return f"Nothing to do: {len(plan.unchanged)} objects are as the file says.{again}"


class _Text:
    def __init__(self, plan: Plan, color: bool, width: int) -> None:
        self.plan, self.color, self.width = plan, color, width
        self.groups = plan_groups(plan)
        labels = [len(safe(row.label)) for group in self.groups for row in group.rows]
        self.label_width = min(max(labels, default=0), max(width // 3, 30))
        self.step_width = max(len(str(len(plan.changes))), 1)
        self.symbol_width = max((len(row.symbol) for group in self.groups for row in group.rows), default=1)

    def lines(self) -> Iterator[str]:
        plan = self.plan
        yield safe(f"Topology {plan.topology.name} on {plan.broker}, virtual host {plan.vhost}")
        if len(plan.changes) > 1:
            yield "The numbers are the steps of apply, in that order."
        yield ""
        for group in self.groups:
            yield from self._group(group)
            yield ""
        yield from self._findings()

    def _findings(self) -> Iterator[str]:
        plan = self.plan
        # what differs is told as what would be replaced
        refused = [("Refused: ", "red", with_options(each)) for each in plan.refusals if each.code != "differs"]
        warned = [("Warning: ", "yellow", with_options(each)) for each in plan.warnings]
        for prefix, tint, text in (*refused, *warned, *(("Note: ", None, with_options(note)) for note in plan.notes)):
            yield from self._said(prefix, tint, text)
        if refused or warned or plan.notes:
            yield ""

    def _group(self, group: Group) -> Iterator[str]:
        yield from self._wrapped("  ", safe(group.title), 4, "red" if group.danger else None)
        for row in group.rows:
            yield from self._row(row)
        if group.others:
            steps = f"steps {ranges(group.other_steps)}"
            told = f"{len(group.others)} more work queues in the same way, each with its own names and keys ({steps}):"
            yield from self._wrapped("  ", f"{told} {safe(listed(group.others))}", 4)

    def _row(self, row: Row) -> Iterator[str]:
        step = str(row.steps[0]) if row.steps else ""
        words = safe(row.words)
        if len(row.steps) > 1:
            words = f"{words} (steps {ranges(row.steps)})".strip()
        symbol = paint(f"{row.symbol:>{self.symbol_width}}", _COLORS.get(row.symbol, "red"), self.color)
        label = safe(row.label)
        head = f"  {step:>{self.step_width}} {symbol} "
        indent = 4 + self.step_width + self.symbol_width
        column = indent + self.label_width + 2
        if not words:
            yield head + label
        elif len(label) > self.label_width:
            yield head + label
            yield from self._wrapped(" " * column, words, column)
        else:
            first, *rest = self._wrapped(" " * column, words, column)
            yield f"{head}{label:<{self.label_width}}  {first.lstrip()}"
            yield from rest
        for name, text in row.details:
            tint = "red" if row.danger is Danger.DANGER and name in ("messages", "why") else None
            yield from self._wrapped(" " * (indent + 2), f"{safe(name)}: {safe(text)}", indent + 4, tint)

    def _said(self, prefix: str, tint: str | None, text: str) -> Iterator[str]:
        first, *rest = self._wrapped(prefix, safe(text), 2)
        yield paint(prefix, tint, self.color) + first.removeprefix(prefix)
        yield from rest

    def _wrapped(self, prefix: str, text: str, indent: int, tint: str | None = None) -> Iterator[str]:
        lines = textwrap.wrap(
            text,
            max(self.width, indent + 30),
            initial_indent=prefix,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines or [prefix]:
            bare = line.lstrip(" ")
            yield " " * (len(line) - len(bare)) + paint(bare, tint, self.color)
