"""Write a plan as markdown for a pull request: a summary, dangerous steps, and the rest folded.

Names come from files and brokers. In a comment they could be markup, mention people or hide what follows, so all of
them are escaped: HTML, what markdown acts on, and through `safe` what acts on how text is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from amqpflow.cli.safe import safe, with_options
from amqpflow.planning.reports.consequences import Danger
from amqpflow.planning.values.plan import Plan

from .plan import plan_summary
from .plan_rows import Group, Row, listed, plan_groups, ranges

LIMIT = 60_000  #: characters; a comment on GitHub holds 65,536
_ACTIVE = re.compile(r"[\\`*_\[\]#!|~<>^$]|:(?! )")


def plan_markdown(plan: Plan) -> str:
    """Return the plan in the markdown of GitHub and GitLab."""
    made: list[str] = []
    size = 0
    left_out = 0
    for part in _parts(plan):
        if left_out or size + len(part) > LIMIT:
            left_out += 1
            continue
        made.append(part)
        size += len(part) + 1
    if left_out:
        made.append(f"\n_{left_out} more parts are left out here: `amqpflow plan` shows all of them._\n")
    return "".join(made)


def prose(text: str) -> str:
    """Return text without markup, mentions and line ends."""
    escaped = _escaped(text)
    return escaped.replace("@", "<code>@</code>")


def code(text: str) -> str:
    """Return text as code. Text could close backticks, but not the element."""
    return f"<code>{_escaped(text)}</code>"


def _escaped(text: str) -> str:
    """Escape text by character references, which HTML and markdown both read as text."""
    return _ACTIVE.sub(lambda found: f"&#{ord(found[0])};", safe(text).replace("&", "&amp;").replace('"', "&quot;"))


def _parts(plan: Plan) -> Iterator[str]:
    yield f"### amqpflow plan: {code(plan.topology.name)}\n\n"
    yield f"**{prose(plan_summary(plan))}**\n\n"
    yield f"{prose(plan.broker)}, virtual host {code(plan.vhost)}\n"
    others = [("Refused", with_options(each)) for each in plan.refusals if each.code != "differs"]
    others += [("Warning", with_options(each)) for each in plan.warnings]
    groups = plan_groups(plan)
    for group in groups:
        if group.danger:
            yield f"\n#### {prose(group.title)}\n\n{_table(group)}"
    if others:
        yield "\n" + "".join(f"- **{word}:** {prose(text)}\n" for word, text in others)
    for group in groups:
        if not group.danger:
            yield f"\n<details><summary>{prose(group.title)}</summary>\n\n{_table(group)}\n</details>\n"
    if plan.notes:
        notes = "".join(f"- {prose(with_options(note))}\n" for note in plan.notes)
        yield f"\n<details><summary>Notes</summary>\n\n{notes}\n</details>\n"


def _table(group: Group) -> str:
    rows = ["| step | | what | |\n|---:|:---:|---|---|\n", *(_row(row) for row in group.rows)]
    if group.others:
        steps = ranges(group.other_steps)
        told = f"{len(group.others)} more work queues in the same way (steps {steps}): {listed(group.others)}"
        rows.append(f"\n{prose(told)}\n")
    return "".join(rows)


def _row(row: Row) -> str:
    about = [prose(row.words)] if row.words else []
    about += [f"**{prose(name)}:** {prose(text)}" for name, text in row.details]
    mark = " :warning:" if row.danger is Danger.DANGER else ""
    return f"| {ranges(row.steps)} | {code(row.symbol)}{mark} | {code(row.label)} | {'<br>'.join(about)} |\n"
