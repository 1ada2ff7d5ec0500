"""What left the file is removed, nothing else, and every prefix of the removal is safe."""

from __future__ import annotations

from dataclasses import replace
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.resources import STAMP, Binding, BrokerState, Exchange, Policy, Queue
from amqpflow.model.routes import CompiledTopology, NativeRetry
from amqpflow.planning.compare.adoption import adoption
from amqpflow.planning.compare.diff import destruction, diff
from amqpflow.planning.compare.order import waits_for
from amqpflow.planning.values.approvals import Approval, parse_approvals
from amqpflow.planning.values.changes import (
    Change,
    CreateExchange,
    CreateQueue,
    DeleteExchange,
    DeleteQueue,
    Drain,
    PutManifest,
    RemoveManifest,
    RemovePolicy,
    Unbind,
    label,
)
from amqpflow.planning.values.manifest import Damaged, Manifest, to_json
from amqpflow.planning.values.observation import Depth, Observation
from amqpflow.planning.values.plan import Plan
from tests.plans import after, assert_nothing_dangles, limits, manifest_after, observation, state_of, with_objects
from tests.topologies import topology

EVENTS = Exchange(name="events", type="topic", arguments={STAMP: "shop", "alternate-exchange": "lost"})
LOST = Exchange(name="lost", type="fanout", arguments={STAMP: "shop"})
ENTRY = Binding(source="events", destination="orders", routing_key="order.*")
TO_MAIL = {"dead-letter-exchange": "", "dead-letter-routing-key": "mail"}
KNOWN = Manifest(topology="shop", vhost="/", bindings=(ENTRY,))


def shop(*delays: int, **queues: tuple[int, ...]) -> CompiledTopology:
    made = topology({"orders": delays or (5000,), **queues}, vhost="/")
    return with_objects(
        made,
        exchanges={**made.desired.exchanges, "events": EVENTS, "lost": LOST},
        bindings=(*made.desired.bindings, ENTRY),
    )


def seen(state: BrokerState, manifest: Manifest | None = KNOWN, **depths: Depth) -> Observation:
    return replace(observation(state), manifest=state_of(manifest), now_ms=1_000_000, depths=dict(depths))


def applied(compiled: CompiledTopology) -> BrokerState:
    return after(observation().state, diff(compiled, observation()).changes)


def prune(compiled: CompiledTopology, observed: Observation, *forced: str) -> Plan:
    return diff(compiled, observed, prune=True, approvals=parse_approvals(["delete", *(f"delete:{n}" for n in forced)]))


def labels(plan: Plan) -> list[str]:
    return [f"{change.action} {label(change)}" for change in plan.changes]


def test_a_changed_delay_is_a_new_queue_and_the_old_one_is_retired() -> None:
    plan = prune(shop(7000), seen(applied(shop(5000))))
    assert plan.findings == ()
    assert plan.needs == (Approval("delete"),)
    assert plan.required == ("delete",)
    assert labels(plan) == [
        "update manifest amqpflow./.shop",
        "create queue orders.retry.7s",
        "create binding shop.retry -> orders.retry.7s (orders.retry.7s)",
        "delete binding shop.retry -> orders.retry.5s (orders.retry.5s)",
        "drain queue orders.retry.5s",
        "delete queue orders.retry.5s",
        "update manifest amqpflow./.shop",
    ]
    first = plan.changes[0]
    assert isinstance(first, PutManifest)
    assert first.manifest.retiring == {"orders.retry.5s": 1_000_000}
    drain = next(change for change in plan.changes if isinstance(change, Drain))
    assert (drain.delay_ms, drain.returns_to) == (5000, "orders")


def test_without_prune_nothing_is_removed() -> None:
    plan = diff(shop(7000), seen(applied(shop(5000))))
    assert not plan.required
    assert all(change.action == "create" for change in plan.changes)
    assert "queue orders.retry.5s is no longer in the file; apply leaves it unchanged." in plan.notes


def test_a_work_queue_goes_after_its_retry_queues_and_before_its_parking_queue() -> None:
    plan = prune(shop(), seen(applied(shop(mail=(1000, 2000)))))
    assert labels(plan)[1:-1] == [
        "delete binding shop.retry -> mail.retry.1s (mail.retry.1s)",
        "delete binding shop.retry -> mail.retry.2s (mail.retry.2s)",
        "drain queue mail.retry.1s",
        "drain queue mail.retry.2s",
        "delete queue mail.retry.1s",
        "delete queue mail.retry.2s",
        "delete binding shop.retry -> mail (mail)",
        "delete queue mail",
        "delete binding shop.parking -> mail.parking (mail.parking)",
        "delete queue mail.parking",
    ]


@pytest.mark.parametrize(
    ("queue", "depth", "code"),
    [
        ("mail", Depth(messages=1), "not-empty"),
        ("mail", Depth(messages=2, retained=2), "not-empty"),
        ("mail", Depth(messages=0, consumers=1), "in-use"),
        ("mail.parking", Depth(messages=3), "not-empty"),
        ("mail.retry.1s", Depth(messages=0, consumers=1), "in-use"),
    ],
)
def test_messages_and_consumers_hinder_a_removal_unless_it_is_named(queue: str, depth: Depth, code: str) -> None:
    observed = seen(applied(shop(mail=(1000,))), **{queue: depth})
    plan = prune(shop(), observed)
    assert [(each.code, each.object) for each in plan.refusals] == [(code, f"queue {queue}")]
    assert f"`allow` delete:{queue}" in plan.refusals[0].hint
    forced = prune(shop(), observed, queue)
    assert forced.refusals == ()
    deletion = next(each for each in forced.changes if isinstance(each, DeleteQueue) and each.name == queue)
    assert deletion.forced
    assert not any(isinstance(each, Drain) and each.name == queue for each in forced.changes)


def test_messages_in_a_retry_queue_drain_and_hinder_nothing() -> None:
    plan = prune(shop(7000), seen(applied(shop(5000)), **{"orders.retry.5s": Depth(messages=1000)}))
    assert plan.refusals == ()
    assert next(each for each in plan.changes if isinstance(each, Drain)).messages == 1000


def test_a_work_queue_with_a_ttl_is_not_emptied_by_waiting_for_it() -> None:
    mail = topology({"orders": [5000]}, vhost="/", arguments={"x-message-ttl": 60000})
    there = applied(topology({"orders": [5000], "mail": []}, vhost="/", arguments={"x-message-ttl": 60000}))
    plan = prune(mail, seen(there, None, mail=Depth(messages=4)))
    assert [each.code for each in plan.refusals] == ["not-empty"]
    assert not any(isinstance(each, Drain) for each in plan.changes)


def test_a_binding_is_ours_only_when_it_is_recorded() -> None:
    there = applied(shop())
    without = with_objects(shop(), bindings=tuple(each for each in shop().desired.bindings if each != ENTRY))
    known = prune(without, seen(there))
    assert labels(known) == ["delete binding events -> orders (order.*)", "update manifest amqpflow./.shop"]
    assert diff(without, seen(there)).notes[0] == (
        "binding events -> orders (order.*) is no longer in the file; apply leaves it unchanged."
    )
    lost = prune(without, seen(there, None))
    assert lost.changes == ()


def test_a_lost_manifest_is_written_again() -> None:
    plan = diff(shop(), seen(applied(shop()), None))
    assert labels(plan) == ["create manifest amqpflow./.shop"]
    change = plan.changes[0]
    assert isinstance(change, PutManifest)
    assert change.manifest == replace(KNOWN, bindings=(), unproven=(ENTRY,))
    assert diff(shop(), seen(applied(shop()), change.manifest)).changes == ()
    assert diff(shop(), seen(applied(shop()))).changes == ()


def test_an_unreadable_manifest_is_refused_with_what_it_is() -> None:
    observed = replace(seen(applied(shop()), None), manifest=Damaged(why="it has no format"))
    for plan in (diff(shop(), observed), destruction(shop(), observed)):
        assert [each.code for each in plan.refusals] == ["manifest-unreadable"]
        assert not any(isinstance(each, PutManifest | RemoveManifest) for each in plan.changes)


def test_without_management_nothing_is_removed_and_it_says_why() -> None:
    blind = Observation(version=(4, 3, 6), state=applied(shop()), complete=False, source="nobody listens there")
    for plan in (prune(shop(), blind), destruction(shop(), blind)):
        assert [each.code for each in plan.refusals] == ["removal-needs-management"]
        assert all(change.action == "ensure" for change in plan.changes)


@pytest.mark.parametrize(
    ("foreign", "said"),
    [
        (
            {"queues": Queue(name="x", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "mail"})},
            "mail",
        ),
        ({"bindings": Binding(source="amq.topic", destination="mail", routing_key="#")}, "mail"),
        (
            {
                "policies": Policy(
                    name="p", pattern="x", definition={"dead-letter-exchange": "", "dead-letter-routing-key": "mail"}
                )
            },
            "mail",
        ),
        ({"exchanges": Exchange(name="x", type="topic", arguments={"alternate-exchange": "extra"})}, "extra"),
        ({"bindings": Binding(source="extra", destination="theirs", routing_key="#")}, "extra"),
        ({"bindings": Binding(source="amq.topic", destination="extra", destination_type="exchange")}, "extra"),
    ],
)
def test_what_others_use_is_not_removed(foreign: dict[str, Any], said: str) -> None:
    there = applied(shop(mail=()))
    extra = Exchange(name="extra", type="topic", arguments={STAMP: "shop"})
    there = replace(
        there,
        exchanges={**there.exchanges, "extra": extra},
        queues={**there.queues, "theirs": Queue(name="theirs")},
    )
    for part, thing in foreign.items():
        present = getattr(there, part)
        more = (*present, thing) if part == "bindings" else {**present, thing.name: thing}
        there = replace(there, **{part: more})
    plan = prune(shop(), seen(there))
    assert [each.code for each in plan.refusals] == ["still-used"]
    assert plan.refusals[0].object.endswith(f" {said}")


def test_queues_that_dead_letter_in_a_circle_are_refused() -> None:
    def ring(name: str, to: str) -> Queue:
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": to, STAMP: "shop"}
        return Queue(name=name, arguments=arguments)

    there = applied(shop())
    there = replace(there, queues={**there.queues, "a": ring("a", "b"), "b": ring("b", "a"), "c": ring("c", "c")})
    plan = prune(shop(), seen(there))
    assert sorted(each.object for each in plan.refusals) == ["queue a", "queue b"]


def test_destroy_leaves_nothing_of_ours_and_all_of_others() -> None:
    policy = limits("orders")
    compiled = with_objects(shop(1000, 5000, mail=(2000,)), policies={policy.name: policy})
    foreign = BrokerState(
        exchanges={"theirs": Exchange(name="theirs", type="topic")},
        queues={"theirs": Queue(name="theirs")},
        bindings=(Binding(source="theirs", destination="theirs"),),
        policies={"p": Policy(name="p", pattern="^theirs$", definition={"max-length": 1})},
    )
    there = after(applied(compiled), ())
    there = replace(
        there,
        exchanges={**there.exchanges, **foreign.exchanges},
        queues={**there.queues, **foreign.queues},
        bindings=(*there.bindings, *foreign.bindings),
        policies={**there.policies, **foreign.policies},
    )
    plan = destruction(compiled, seen(there))
    assert plan.refusals == ()
    assert isinstance(plan.changes[-1], RemoveManifest)
    for length in range(len(plan.changes) + 1):
        assert_nothing_dangles(after(there, plan.changes[:length]))
    left = after(there, plan.changes)
    assert left.queues == foreign.queues
    assert left.bindings == foreign.bindings
    assert left.policies == foreign.policies
    assert left.exchanges.keys() == {*observation().state.exchanges, "theirs"}
    assert destruction(compiled, seen(left, None)).changes == ()


def test_a_policy_stays_as_long_as_the_queues_that_it_covers() -> None:
    """Without it a platform's policy for everything works on a queue that is still there."""
    policy = limits("orders")
    compiled = with_objects(shop(5000), policies={policy.name: policy})
    changes = destruction(compiled, seen(applied(compiled))).changes
    (removed,) = [n for n, each in enumerate(changes) if isinstance(each, RemovePolicy)]
    assert removed > max(n for n, each in enumerate(changes) if isinstance(each, DeleteQueue))
    assert waits_for(changes[removed]) == {"orders"}, "where the queue is left for the next run, so is its policy"


def test_a_policy_that_dead_letters_into_what_is_removed_goes_first() -> None:
    there = applied(shop(5000))
    definition = {"dead-letter-exchange": "", "dead-letter-routing-key": "orders.parking"}
    name = "amqpflow.shop.quorum-0123abcd"
    policy = Policy(name=name, pattern="^(?:orders|theirs)$", definition=definition)
    there = replace(there, queues={**there.queues, "theirs": Queue(name="theirs")}, policies={name: policy})
    changes = destruction(shop(5000), seen(there)).changes
    kinds = [type(each) for each in changes]
    assert kinds.index(RemovePolicy) < kinds.index(DeleteQueue)


def test_a_manifest_without_a_stamp_is_said_to_come_from_what_can_have_left_it() -> None:
    """Of an interrupted adopt or destroy the virtual host is the same one as ever."""
    dlq = Queue(name="orders.dlq", arguments={"x-queue-type": "quorum"})
    compiled = topology({"orders": [5000]}, vhost="/")
    compiled = with_objects(compiled, queues={**compiled.desired.queues, dlq.name: dlq})
    there = replace(observation().state, queues={dlq.name: dlq})
    record, stamp = adoption(compiled, seen(there, None), [("queue", dlq.name)]).changes
    assert isinstance(record, PutManifest)
    assert isinstance(stamp, CreateExchange)
    (killed,) = [w for w in diff(compiled, seen(there, record.manifest)).warnings if w.code == "manifest-outdated"]
    assert (
        "queue orders.dlq. It is of an earlier virtual host of this name, or an adopt or a destroy was"
        in killed.message
    )
    again = adoption(compiled, seen(there, record.manifest), [("queue", dlq.name)])
    assert [type(each) for each in again.changes] == [PutManifest, CreateExchange]
    assert destruction(compiled, seen(there, record.manifest)).changes == (RemoveManifest(manifest=record.manifest),)


@pytest.mark.parametrize(("version", "stranger"), [((3, 10, 25), True), ((4, 0, 5), False)])
def test_a_policy_works_on_others_queues_by_the_keys_that_the_broker_knows(
    version: tuple[int, ...], stranger: bool
) -> None:
    """RabbitMQ 4 passes a policy with max-in-memory-length over on a classic queue, RabbitMQ 3 does not."""
    there = applied(shop())
    definition = {"max-length": 5, "max-in-memory-length": 5}
    policy = Policy(name="by hand", pattern="^(orders|theirs)$", definition=definition, priority=200)
    theirs = Queue(name="theirs", arguments={"x-queue-type": "classic"})
    there = replace(there, queues={**there.queues, "theirs": theirs}, policies={policy.name: policy})
    adopting = adoption(shop(), replace(seen(there), version=version), [("policy", "by hand")])
    assert [each.code for each in adopting.refusals] == ["not-adoptable"] * stranger
    adopted = replace(KNOWN, adopted=frozenset({("policy", "by hand")}))
    removing = destruction(shop(), replace(seen(there, adopted), version=version))
    assert [each.object for each in removing.refusals] == ["policy by hand"] * stranger


def test_adopted_objects_count_as_ours() -> None:
    there = applied(shop())
    queues = dict(there.queues)
    queues["orders"] = replace(
        queues["orders"], arguments={k: v for k, v in queues["orders"].arguments.items() if k != STAMP}
    )
    policy = Policy(name="by hand", pattern="^orders$", definition={"max-length": 5}, priority=200)
    there = replace(there, queues=queues, policies={policy.name: policy})
    assert [each.code for each in diff(shop(), seen(there)).refusals] == ["not-ours"]
    adopted = replace(KNOWN, adopted=frozenset({("queue", "orders"), ("policy", "by hand")}))
    assert diff(shop(), seen(there, adopted)).refusals == ()
    assert labels(prune(shop(), seen(there, adopted)))[0] == "delete policy by hand"
    gone = after(there, destruction(shop(), seen(there, adopted)).changes)
    assert gone.queues == {}
    assert gone.policies == {}


NAMES = (
    "orders",
    "orders.retry.5s",
    "orders.retry.9s",
    "orders.parking",
    "orders2",
    "shop",
    "shop.retry",
    "shop.retry2",
)
LOOKALIKES = st.sampled_from([*NAMES, *(f"x{name}" for name in NAMES), *(f"{name}.x" for name in NAMES)])
OWNERS = st.sampled_from([None, "shop2", "sho", "shop.eu", "SHOP"])


@st.composite
def foreign_states(draw: st.DrawFn) -> BrokerState:
    """Hundreds of objects that are not ours, with names that look like ours."""

    def stamped(arguments: dict[str, Any]) -> dict[str, Any]:
        owner = draw(OWNERS)
        return arguments if owner is None else {**arguments, STAMP: owner}

    tier = {"x-message-ttl": 5000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "theirs"}
    count = draw(st.integers(20, 60))
    queues = {
        name: Queue(name=name, arguments=stamped(draw(st.sampled_from([{}, tier, {"x-queue-type": "quorum"}]))))
        for name in (f"{draw(LOOKALIKES)}.f{number}" for number in range(count))
    }
    exchanges = {
        name: Exchange(name=name, type="direct", arguments=stamped({}))
        for name in (f"{draw(LOOKALIKES)}.f{number}" for number in range(count))
    }
    ends = [(source, queue) for source in [*exchanges, "amq.topic"] for queue in queues]
    chosen = draw(st.lists(st.sampled_from(ends), max_size=40, unique=True))
    pattern = "amqpflow.{}.quorum-0123abcd"
    policies = {
        name: Policy(name=name, pattern="^nothing$", definition={"max-length": 1})
        for name in (*(pattern.format(each) for each in ("shop2", "shop.eu", "sho")), "shop", "amqpflow.shop")
    }
    queues["theirs"] = Queue(name="theirs")
    return BrokerState(
        exchanges=exchanges,
        queues=queues,
        bindings=tuple(Binding(source=source, destination=queue, routing_key="k") for source, queue in chosen),
        policies=policies,
    )


@given(foreign_states(), st.sets(st.sampled_from([1000, 2000, 5000, 60000]), min_size=1), st.booleans())
def test_what_is_not_ours_is_never_touched(foreign: BrokerState, delays: set[int], destroy: bool) -> None:
    """Neither by a prune nor by a destroy, at no step; and what is ours is gone afterwards."""
    there = applied(shop(5000, 9000, mail=(1000,)))
    there = replace(
        there,
        exchanges={**there.exchanges, **foreign.exchanges},
        queues={**there.queues, **foreign.queues},
        bindings=(*there.bindings, *foreign.bindings),
        policies={**there.policies, **foreign.policies},
    )
    wanted = shop(*sorted(delays))
    plan = destruction(wanted, seen(there)) if destroy else prune(wanted, seen(there))
    assert plan.refusals == ()
    touched = {(change.kind, change.name) for change in plan.changes}
    for kind, things in (("queue", foreign.queues), ("exchange", foreign.exchanges), ("policy", foreign.policies)):
        assert not touched & {(kind, name) for name in things}
    unbound = {change.binding.identity for change in plan.changes if isinstance(change, Unbind)}
    assert not unbound & {each.identity for each in foreign.bindings}
    for length in range(0, len(plan.changes) + 1, 2):
        assert_nothing_dangles(after(there, plan.changes[:length]))
    left = after(there, plan.changes)
    again = destruction(wanted, seen(left, None)) if destroy else prune(wanted, seen(left, KNOWN))
    assert again.changes == ()


@given(st.data())
def test_every_prefix_of_a_prune_is_safe_and_can_be_gone_on_from(data: st.DataObject) -> None:
    old = shop(*data.draw(st.sets(st.sampled_from([1000, 2000, 5000]), min_size=1)), mail=(1000, 3000))
    new = shop(*data.draw(st.sets(st.sampled_from([2000, 5000, 7000]), min_size=1)))
    there = applied(old)
    plan = prune(new, seen(there))
    cut = data.draw(st.integers(0, len(plan.changes)))
    done: tuple[Change, ...] = plan.changes[:cut]
    reached = after(there, done)
    assert_nothing_dangles(reached)
    rest = prune(new, seen(reached, manifest_after(KNOWN, done)))
    assert rest.refusals == ()
    end = after(reached, rest.changes)
    assert end.queues.keys() == new.desired.queues.keys()
    recorded = manifest_after(manifest_after(KNOWN, done), rest.changes)
    assert to_json(recorded or KNOWN) == to_json(KNOWN)
    assert prune(new, seen(end, recorded)).changes == ()


TIER = "orders.retry.5s"


def differing() -> BrokerState:
    there = applied(shop(5000))
    old = replace(there.queues[TIER], arguments={**there.queues[TIER].arguments, "x-queue-type": "classic"})
    return replace(there, queues={**there.queues, TIER: old})


def test_a_retry_queue_with_other_arguments_is_swapped_through_another_one() -> None:
    plan = diff(shop(5000), seen(differing()))
    assert plan.refusals == ()
    assert plan.needs == (Approval("replace"),)
    assert [str(each) for each in plan.replaced[TIER]]
    assert labels(plan)[1:-1] == [
        f"create queue {TIER}.swap",
        f"update binding shop.retry -> {TIER}.swap ({TIER})",
        f"drain queue {TIER}",
        f"delete queue {TIER}",
        f"create queue {TIER}",
        f"update binding shop.retry -> {TIER} ({TIER})",
        f"drain queue {TIER}.swap",
        f"delete queue {TIER}.swap",
    ]


@pytest.mark.parametrize("cut", range(12))
def test_a_swap_goes_on_from_wherever_it_was_stopped(cut: int) -> None:
    there = differing()
    plan = diff(shop(5000), seen(there))
    done = plan.changes[:cut]
    reached = after(there, done)
    assert_nothing_dangles(reached)
    rest = diff(shop(5000), seen(reached, manifest_after(KNOWN, done)))
    assert rest.refusals == ()
    end = after(reached, rest.changes)
    assert end.queues == applied(shop(5000)).queues
    assert {each.identity for each in end.bindings} == {each.identity for each in applied(shop(5000)).bindings}
    recorded = manifest_after(manifest_after(KNOWN, done), rest.changes)
    assert diff(shop(5000), seen(end, recorded)).changes == ()


def test_a_swap_that_died_between_unbinding_and_binding_goes_on() -> None:
    there = differing()
    changes = diff(shop(5000), seen(there)).changes
    created = next(n for n, each in enumerate(changes) if isinstance(each, CreateQueue))
    reached = after(there, changes[: created + 1])
    reached = replace(reached, bindings=tuple(each for each in reached.bindings if each.destination != TIER))
    rest = diff(shop(5000), seen(reached))
    assert f"create binding shop.retry -> {TIER}.swap ({TIER})" in labels(rest)
    assert after(reached, rest.changes).queues == applied(shop(5000)).queues


def test_a_tier_that_left_the_file_in_the_middle_of_its_swap_is_pruned_with_its_stand_in() -> None:
    there = differing()
    plan = diff(shop(5000), seen(there))
    reached = after(there, plan.changes[:3])
    assert f"{TIER}.swap" in reached.queues
    gone = prune(shop(7000), seen(reached))
    assert gone.refusals == ()
    end = after(reached, gone.changes)
    assert end.queues.keys() == shop(7000).desired.queues.keys()


def test_deleted_exchanges_come_before_their_alternates() -> None:
    without = topology({"orders": [5000]}, vhost="/")
    plan = prune(without, seen(applied(shop())))
    assert [each.name for each in plan.changes if isinstance(each, DeleteExchange)] == ["events", "lost"]
    assert not any(isinstance(each, RemovePolicy) for each in plan.changes)


def test_a_marker_of_native_retry_that_another_program_made_is_refused() -> None:
    """Consumers would take it for ours, which says that this broker delays what is rejected."""
    made = topology({"orders": []}, vhost="/", native=NativeRetry(min_ms=1000, max_ms=1000, retries=3))
    foreign = replace(made.desired.exchanges["shop.native"], arguments={})
    there = replace(BrokerState(), exchanges={foreign.name: foreign})
    refused = diff(made, seen(there, None)).refusals
    assert ("not-ours", "exchange shop.native") in [(each.code, each.object) for each in refused]
    assert not destruction(made, seen(there, None)).changes
    adopting = adoption(made, seen(there, None), [("exchange", "shop.native")])
    assert [each.code for each in adopting.refusals] == ["not-adoptable"]


@pytest.mark.timing
def test_planning_the_removal_of_four_times_as_many_queues_takes_about_four_times_as_long() -> None:
    """Each queue once looked through all bindings and all queues: a thousand queues took twenty seconds."""

    def seconds(count: int) -> float:
        def of(*delays: int) -> CompiledTopology:
            return topology({f"q{number}": delays for number in range(count)}, vhost="/")

        shorter, there = of(5000, 60_000), observation(applied(of(5000, 30_000)))
        begun = process_time()
        plan = diff(shorter, there, prune=True)
        taken = process_time() - begun
        assert sum(isinstance(change, DeleteQueue) for change in plan.changes) == count
        return taken

    assert min(seconds(600) for _ in range(2)) < 9 * seconds(150)  # 15 times as long where it looks through them all
