"""What an apply leaves for another time, and where it stops, is as safe as any prefix; the broker is a model."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.errors import BrokerError
from amqpflow.model.resources import STAMP, Binding, BrokerState, Exchange
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.compare.diff import diff
from amqpflow.planning.values.apply_report import ApplyReport
from amqpflow.planning.values.approvals import Approval
from amqpflow.planning.values.changes import Change, DeleteQueue, Drain, Unbind, label
from amqpflow.planning.values.findings import Ref
from amqpflow.planning.values.manifest import Manifest
from amqpflow.planning.values.observation import Observation
from amqpflow.planning.values.plan import Plan
from amqpflow.services.provisioning.applier import ApplyRun
from amqpflow.services.provisioning.drain import DrainMonitor, Remaining
from tests.plans import after, assert_nothing_dangles, manifest_after, observation, state_of, with_objects
from tests.topologies import topology

ENTRY = Binding(source="events", destination="mail", routing_key="mail.*")
ALLOWED = frozenset({Approval("delete"), Approval("replace")})


class Model:
    """A virtual host, as changes make it."""

    def __init__(self, state: BrokerState, fails_at: str = "") -> None:
        self.state, self.fails_at = state, fails_at
        self.manifest: Manifest | None = None

    async def execute(self, change: Change) -> None:
        if label(change) == self.fails_at:
            raise BrokerError("it does not want to")
        self.state = after(self.state, [change])
        self.manifest = manifest_after(self.manifest, [change])
        assert_nothing_dangles(self.state)

    def seen(self) -> Observation:
        return replace(observation(self.state), manifest=state_of(self.manifest), now_ms=1)


class Waiting(DrainMonitor):
    """Some queues have messages; remembers which were looked at."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.looked: list[str] = []

    async def drained(self, drains: Sequence[Drain], *, wait: bool) -> dict[str, Remaining]:
        return await self.remaining([each.name for each in drains])

    async def remaining(self, names: Collection[str]) -> dict[str, Remaining]:
        self.looked += names
        return {name: Remaining(messages=1) for name in names if name in self.names}


def carried_out(plan: Plan, model: Model, emptiness: DrainMonitor | None = None) -> ApplyReport:
    assert plan.refusals == ()
    return asyncio.run(ApplyRun(plan, monitor=emptiness).run(model))


def shop(*delays: int, mail: tuple[int, ...] | None = (1000, 3000)) -> CompiledTopology:
    made = topology({"orders": list(delays)} | ({"mail": list(mail)} if mail else {}), vhost="/")
    events = Exchange(name="events", type="topic", arguments={STAMP: "shop"})
    return with_objects(
        made,
        exchanges={**made.desired.exchanges, "events": events},
        bindings=(*made.desired.bindings, *([ENTRY] if mail else [])),
    )


def applied(compiled: CompiledTopology) -> Model:
    model = Model(observation().state)
    assert carried_out(diff(compiled, model.seen()), model).complete
    return model


def differing(compiled: CompiledTopology, *tiers: str) -> Model:
    """The topology is there; some of its retry queues are of another type."""
    model = applied(compiled)
    queues = dict(model.state.queues)
    for name in tiers:
        queues[name] = replace(queues[name], arguments={**queues[name].arguments, "x-queue-type": "classic"})
    model.state = replace(model.state, queues=queues)
    return model


def test_a_stand_in_stays_as_long_as_it_has_the_key() -> None:
    tier = "orders.retry.5s"
    model = differing(shop(5000), tier)
    report = carried_out(diff(shop(5000), model.seen()), model, Waiting(tier))
    assert f"{tier}.swap" in model.state.queues
    assert {each.destination for each in model.state.bindings if each.routing_key == tier} == {f"{tier}.swap"}
    assert [type(each.change) for each in report.postponed[-3:-1]] == [Drain, DeleteQueue]


@given(st.data())
def test_a_swap_that_is_postponed_keeps_every_key_and_is_gone_on_with(data: st.DataObject) -> None:
    tiers = ["orders.retry.5s", "orders.retry.7s", "mail.retry.1s"]
    wanted = shop(5000, 7000)
    model = differing(wanted, *tiers)
    carriers = [*tiers, *(f"{each}.swap" for each in tiers)]
    for _ in range(3):
        waiting = data.draw(st.lists(st.sampled_from(carriers), unique=True))
        report = carried_out(diff(wanted, model.seen()), model, Waiting(*waiting))
        assert report.only_postponed
        keys = [each.routing_key for each in model.state.bindings if each.source == "shop.retry"]
        assert sorted(keys) == sorted(
            each.routing_key for each in wanted.desired.bindings if each.source == "shop.retry"
        )
    assert carried_out(diff(wanted, model.seen()), model, Waiting()).complete
    assert model.state.queues.keys() == wanted.desired.queues.keys()
    assert diff(wanted, model.seen()).changes == ()


def test_a_work_queue_keeps_its_parking_while_its_retry_queue_has_messages() -> None:
    model = applied(shop(5000))
    report = carried_out(diff(shop(5000, mail=None), model.seen(), prune=True), model, Waiting("mail.retry.3s"))
    assert {"mail", "mail.parking", "mail.retry.3s"} < model.state.queues.keys()
    assert "mail.retry.1s" not in model.state.queues
    own = {(each.source, each.destination) for each in model.state.bindings}
    assert {("shop.parking", "mail.parking"), ("shop.retry", "mail")} <= own
    assert any(isinstance(each.change, Unbind) for each in report.postponed)


@pytest.mark.parametrize("waiting", [(), ("mail.retry.3s",)])
@pytest.mark.parametrize("fails_at", ["", "queue mail.retry.1s", "queue mail", "queue mail.parking"])
def test_a_prune_that_stops_in_the_middle_leaves_nothing_to_be_planned(fails_at: str, waiting: tuple[str, ...]) -> None:
    """What it unbound is not recorded any more, so the next plan is about what is left, or about nothing."""
    model = applied(shop(5000))
    assert model.manifest is not None
    assert [*model.manifest.bindings] == [ENTRY]
    new = shop(5000, mail=None)
    model.fails_at = fails_at
    report = carried_out(diff(new, model.seen(), prune=True), model, Waiting(*waiting))
    assert report.complete is not bool(fails_at or waiting)
    assert [*model.manifest.bindings] == []
    assert diff(new, model.seen()).changes == ()
    model.fails_at = ""
    assert carried_out(diff(new, model.seen(), prune=True), model, Waiting()).complete
    assert model.state.queues.keys() == new.desired.queues.keys()


def test_every_queue_is_looked_at_before_its_deletion_also_behind_one_that_may_be_lost() -> None:
    model = applied(shop(5000))
    forced = ALLOWED | {Approval("delete", Ref("queue", "mail.retry.1s"))}
    plan = diff(shop(5000, mail=None), model.seen(), prune=True, approvals=forced)
    deleted = [each for each in plan.changes if isinstance(each, DeleteQueue)]
    assert [each.forced for each in deleted] == [True, False, False, False]
    # both retry queues are in one run; with the second one's drain taken away, only a look keeps its messages
    plan = replace(plan, changes=tuple(each for each in plan.changes if not isinstance(each, Drain)))
    looked = Waiting("mail.retry.3s")
    report = carried_out(plan, model, looked)
    assert report.failed is not None
    assert report.failed.change.name == "mail.retry.3s"
    assert "mail.retry.3s" in looked.looked


def test_what_was_done_at_once_is_told_in_the_order_of_the_plan() -> None:
    many = topology({f"q{number:02}": [1000] for number in range(30)}, vhost="/")

    class Shuffled(Model):
        begun = 0

        async def execute(self, change: Change) -> None:
            self.begun += 1
            for _ in range(self.begun * 7 % 5):
                await asyncio.sleep(0)
            await super().execute(change)

    model = Shuffled(observation().state)
    plan = diff(many, model.seen())
    assert carried_out(plan, model).done == plan.changes


class Slow(Model):
    """Each change takes a moment; at one of them something happens."""

    def __init__(self, state: BrokerState, at: str, error: BrokerError | None = None) -> None:
        super().__init__(state)
        self.at, self.error = at, error
        self.reached = asyncio.Event()
        self.under_way = self.most = 0

    async def execute(self, change: Change) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if label(change) == self.at:
                self.reached.set()
                if self.error is not None:
                    raise self.error
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            await super().execute(change)
        finally:
            self.under_way -= 1


MANY = topology({f"q{number:02}": [1000, 5000] for number in range(40)}, vhost="/")


def test_a_failure_among_many_at_once_leaves_nothing_under_way_and_counts_every_change_once() -> None:
    model = Slow(observation().state, "queue q20.retry.1s", BrokerError("no"))
    plan = diff(MANY, model.seen())
    report = carried_out(plan, model)
    assert (model.most, model.under_way) == (16, 0)
    assert report.failed is not None
    assert report.failed.change.name == "q20.retry.1s"
    assert report.interrupted == ()
    assert sorted(map(label, (*report.done, report.failed.change, *report.remaining))) == sorted(
        map(label, plan.changes)
    )
    assert model.state.queues.keys() == {each.name for each in report.done if each.kind == "queue"}
    model.at = ""
    assert carried_out(diff(MANY, model.seen()), model).complete
    assert diff(MANY, model.seen()).changes == ()


def test_an_interruption_among_many_at_once_tells_what_may_be_done_or_not() -> None:
    async def interrupted() -> tuple[Slow, Plan, ApplyReport]:
        model = Slow(observation().state, "queue q20.retry.1s")
        plan = diff(MANY, model.seen())
        application = ApplyRun(plan)
        running = asyncio.create_task(application.run(model))
        await model.reached.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return model, plan, application.report

    model, plan, report = asyncio.run(interrupted())
    assert model.under_way == 0
    assert "q20.retry.1s" in {each.name for each in report.interrupted}
    assert 1 <= len(report.interrupted) <= 16
    told = (*report.done, *report.interrupted, *report.remaining)
    assert sorted(map(label, told)) == sorted(map(label, plan.changes))
    assert model.state.queues.keys() >= {each.name for each in report.done if each.kind == "queue"}
    assert_nothing_dangles(model.state)
    assert carried_out(diff(MANY, model.seen()), Model(model.state)).complete
