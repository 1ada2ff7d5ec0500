"""What `plan` prints: dangerous first, honest about the order, readable for one queue and for a thousand."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator

from amqpflow.cli.render.plan import plan_summary, plan_text
from amqpflow.cli.render.plan_json import plan_object
from amqpflow.cli.render.plan_markdown import LIMIT, plan_markdown
from amqpflow.cli.render.plan_schema import plan_schema
from amqpflow.model.resources import BrokerState, Policy
from amqpflow.planning.compare.diff import diff
from amqpflow.planning.values.changes import label
from amqpflow.planning.values.observation import Depth
from amqpflow.planning.values.plan import Plan
from tests.plans import after, observation
from tests.topology_files import compiled

HOSTILE = "<img src=x>|`@everyone` **x** [a](http://b) \u202e\x1b[31m&amp;"


def many(count: int, max_length: int = 1000, overflow: str = "reject-publish") -> str:
    queues = "".join(
        f"  q{number:04}:\n"
        f"    bindings: [{{exchange: events, routing_key: key.{number}}}]\n"
        f"    type: {'classic' if overflow == 'drop-head' else 'quorum'}\n"
        f"    limits: {{max_length: {max_length}, overflow: {overflow}}}\n"
        for number in range(count)
    )
    head = "retry_policies:\n  s: {delays: [5s, 30s]}\ndefaults: {retry: s}\nexchanges:\n  events: {type: topic}\n"
    return f"version: 1\nname: shop\n{head}queues:\n{queues}"


def applied(text: str) -> BrokerState:
    return after(BrokerState(), diff(compiled(text), observation()).changes)


def changed(state: BrokerState, queue: str, **arguments: object) -> BrokerState:
    """The same, but a queue has other arguments."""
    there = state.queues[queue]
    merged = {**there.arguments, **{key.replace("_", "-"): value for key, value in arguments.items()}}
    return replace(state, queues={**state.queues, queue: replace(there, arguments=merged)})


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("count", [1, 5, 1000])
def test_every_width_and_size_is_readable(count: int, width: int) -> None:
    text = plan_text(diff(compiled(many(count)), observation()), color=False, width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 110
    assert ("more work queues in the same way" in text) is (count == 1000)


def test_the_text_names_every_step_once_so_that_the_order_can_be_read_from_it() -> None:
    plan = diff(compiled(many(4)), observation())
    named: list[int] = []
    for line in plan_text(plan, color=False, width=500).splitlines():
        if steps := re.search(r"\(steps (.*)\)", line):
            for part in steps[1].split(", "):
                first, _, last = part.partition("-")
                named += range(int(first), int(last or first) + 1)
        elif step := re.match(r" +(\d+) \+ (.*?)(?:  |$)", line):
            named.append(int(step[1]))
            assert label(plan.changes[int(step[1]) - 1]) == step[2]
    assert sorted(named) == list(range(1, len(plan.changes) + 1))


def test_what_is_dangerous_comes_first_and_says_why_and_what_becomes_of_messages() -> None:
    state = changed(applied(many(2)), "q0001", x_max_priority=5)
    plan = replace(diff(compiled(many(2, overflow="drop-head")), observation(state)), depths={"q0001": 3})
    text = plan_text(plan, color=False)
    assert text.splitlines()[3] == "  Review before applying"
    assert "-/+ queue q0001" in text
    assert "x-max-priority: 5 -> (not set)" in text
    assert "move 3 ready messages there by publish, confirm, ack" in " ".join(text.split())
    assert plan_summary(plan).endswith(
        "2 to replace (2 queues), which is refused; 19 unchanged. Refused: apply would do nothing."
    )


def test_a_limit_that_takes_messages_out_is_dangerous_and_one_that_refuses_publishes_is_not() -> None:
    for overflow, title in (("drop-head", "Review before applying"), ("reject-publish", "Policies")):
        state = applied(many(1, 1000, overflow))
        seen = replace(observation(state), depths={"q0000": Depth(messages=30, ready=30)})
        text = plan_text(diff(compiled(many(1, 10, overflow)), seen), color=False)
        assert f"  {title}\n" in text
        assert "max-length: 1000 -> 10\n" in text
        told = "the 20 oldest messages are dead-lettered to queue q0000.parking at once (at most once)"
        assert (told in " ".join(text.split())) is (overflow == "drop-head")


def test_a_policy_that_another_queue_joins_names_it_and_says_nothing_of_the_others() -> None:
    old, new = many(4), many(5)
    plan = diff(compiled(new), observation(applied(old)))
    text = plan_text(plan, color=False)
    assert "queues: now also q0004" in text or "max-length 1000; on q0004" in text
    assert "messages:" not in text


def hostile() -> Plan:
    state = changed(applied(many(1)), "q0000", **{HOSTILE: HOSTILE})
    theirs = Policy(name=HOSTILE, pattern="^q", definition={"max-length": 3}, priority=1)
    return diff(compiled(many(2)), observation(replace(state, policies={**state.policies, theirs.name: theirs})))


def test_markdown_shows_hostile_names_as_text() -> None:
    text = plan_markdown(hostile())
    elements = set(re.findall(r"<[^>]*>", text))
    assert elements <= {"<code>", "</code>", "<details>", "</details>", "<summary>", "</summary>", "<br>"}
    assert not {"`", "\u202e", "\x1b", "["} & set(text)
    assert re.search(r"@(?!</code>)", text) is None
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.count("|") == 5


def test_text_shows_hostile_names_as_text() -> None:
    text = plan_text(hostile(), color=False)
    assert not {"\u202e", "\x1b"} & set(text)


def test_markdown_fits_into_a_comment() -> None:
    queues = "".join(f"  q{number}: {{retry: none, delivery_limit: {number + 5}}}\n" for number in range(600))
    text = plan_markdown(diff(compiled(f"version: 1\nname: shop\nqueues:\n{queues}"), observation()))
    assert LIMIT - 2000 < len(text) < LIMIT + 200
    assert "more parts are left out here" in text
    assert text.count("<details>") == text.count("</details>")
    assert len(plan_markdown(diff(compiled(many(1000)), observation()))) < 4000


@pytest.mark.parametrize(
    "plan",
    [
        diff(compiled(many(2)), observation()),
        diff(compiled(many(2)), observation(applied(many(2)))),
        diff(compiled(many(1)), observation(applied(many(3, 7)))),
        diff(compiled(many(2)), replace(observation(), complete=False)),
        hostile(),
    ],
    ids=["create", "nothing", "less", "amqp", "refused"],
)
def test_json_is_what_its_schema_says(plan: Plan) -> None:
    schema = plan_schema()
    Draft202012Validator.check_schema(schema)
    found = json.loads(json.dumps(plan_object(plan)))
    Draft202012Validator(schema).validate(found)
    assert set(found) == set(schema["required"])
    assert [each["step"] for each in found["changes"]] == list(range(1, len(plan.changes) + 1))


def test_json_tells_the_same_as_the_text() -> None:
    state = changed(applied(many(1)), "q0000", x_max_priority=5)
    (found,) = plan_object(diff(compiled(many(1)), observation(state)))["replacements"]
    assert found["attributes"] == [{"name": "x-max-priority", "before": 5, "after": None}]
    assert found["reason"].startswith("RabbitMQ fixes x-max-priority when a queue is declared")
    assert found["how"].startswith("refused, nothing is done.")
    assert found["step"] is None


def test_pruning_the_same_of_a_thousand_queues_is_told_once() -> None:
    there = applied(many(1000))
    shorter = many(1000).replace("delays: [5s, 30s]", "delays: [5s, 1m]")
    plan = diff(compiled(shorter), observation(there), prune=True)
    for width in (80, 120):
        text = plan_text(plan, color=False, width=width)
        assert len(text.splitlines()) < 70
        assert max(map(len, text.splitlines())) <= width
        assert "- 1000 queues" in text
        assert "its messages go back to its work queue, each when it is due" in " ".join(text.split())


def test_a_queue_that_goes_says_how_many_messages_it_holds_and_what_becomes_of_them() -> None:
    there = applied(many(1))
    seen = replace(observation(there), depths={"q0000.retry.30s": Depth(messages=4)})
    plan = diff(compiled(many(1).replace("30s", "1m")), seen, prune=True)
    text = " ".join(plan_text(plan, color=False).split())
    assert "its 4 messages go back to q0000, each when it is due" in text
    assert "keeps the queue if it holds any (4 when the plan was made)" in text
    assert plan_summary(plan).endswith("Apply asks first, or needs --allow delete.")


def test_a_swapped_queue_counts_as_replaced_and_its_stand_in_stands_beside_it() -> None:
    text = many(1).replace("    limits: {max_length: 1000, overflow: reject-publish}\n", "")
    classic = text.replace("    type: quorum\n", "    tiers: {type: classic}\n")
    plan = diff(compiled(classic), observation(applied(text)), prune=True)
    assert "2 to replace (2 queues)" in plan_summary(plan)
    assert plan_object(plan)["summary"]["replace"] == 2
    shown = plan_text(plan, color=False)
    assert "Shared by several queues" not in shown
    assert "x-queue-type: quorum -> classic" in shown
    Draft202012Validator(plan_schema()).validate(json.loads(json.dumps(plan_object(plan))))
