"""What a file becomes on the broker: structure in arguments, and nothing there that could lose a message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.resources import STAMP, Binding
from amqpflow.model.routes import NativeRetry
from tests.topology_files import HEAD, check, compiled

STANDARD = "retry_policies: {p: {delays: [5s, 30s]}}\n"


def test_a_quorum_work_queue_parks_what_the_broker_gives_up_on() -> None:
    topology = compiled(STANDARD + "queues: {q: {retry: p}}")
    assert topology.desired.queues["q"].arguments == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q.parking",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": 50,
        STAMP: "shop",
    }
    assert topology.routes["q"].at_least_once


def test_a_retry_queue_gives_back_to_its_work_queue_alone() -> None:
    topology = compiled(STANDARD + "queues: {q: {retry: p}}")
    assert topology.desired.queues["q.retry.30s"].arguments == {
        "x-queue-type": "quorum",
        "x-message-ttl": 30_000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        STAMP: "shop",
    }


def test_a_parking_queue_lets_nothing_go() -> None:
    topology = compiled(STANDARD + "queues: {q: {retry: p}}")
    assert topology.desired.queues["q.parking"].arguments == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 1_000_000,
        STAMP: "shop",
    }
    classic = compiled("queues: {q: {retry: none, parking: {type: classic}}}")
    assert classic.desired.queues["q.parking"].arguments == {"x-queue-type": "classic", STAMP: "shop"}


def test_a_classic_work_queue_still_has_quorum_retry_queues() -> None:
    topology = compiled(STANDARD + "queues: {q: {retry: p, type: classic, max_priority: 200}}")
    assert topology.desired.queues["q"].arguments == {
        "x-queue-type": "classic",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q.parking",
        "x-overflow": "reject-publish",
        "x-max-priority": 200,
        STAMP: "shop",
    }
    assert topology.desired.queues["q.retry.5s"].type == "quorum"
    assert not topology.routes["q"].at_least_once
    assert "at most once" in topology.notes[0]


def test_classic_retry_queues_have_what_a_classic_queue_knows() -> None:
    topology = compiled(STANDARD + "queues: {q: {retry: p, tiers: {type: classic}}}")
    assert topology.desired.queues["q.retry.5s"].arguments == {
        "x-queue-type": "classic",
        "x-message-ttl": 5_000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q",
        STAMP: "shop",
    }
    assert "classic retry queues" in topology.notes[0]


def test_a_priority_of_a_quorum_queue_is_never_an_argument() -> None:
    topology = compiled("queues: {q: {retry: none, max_priority: 10}}")
    assert "x-max-priority" not in topology.desired.queues["q"].arguments
    assert "strict priorities 0 to 31 from RabbitMQ 4.3" in topology.notes[0]


def test_every_key_of_the_own_exchanges_reaches_one_queue() -> None:
    topology = compiled(STANDARD + "queues: {a: {retry: p}, b: {retry: none}}")
    for name in ("shop.retry", "shop.parking"):
        exchange = topology.desired.exchanges[name]
        assert (exchange.type, exchange.durable, exchange.internal) == ("direct", True, False)
        assert exchange.arguments == {STAMP: "shop"}
    bound = [each for each in topology.desired.bindings if each.source == "shop.retry"]
    assert all(each.routing_key == each.destination and not each.arguments for each in bound)
    assert [each.destination for each in bound] == ["a", "a.retry.5s", "a.retry.30s", "b"]
    parked = [each.destination for each in topology.desired.bindings if each.source == "shop.parking"]
    assert parked == ["a.parking", "b.parking"]


def test_exchanges_and_bindings_of_the_file() -> None:
    topology = compiled("""
        defaults: {retry: none}
        exchanges:
          events: {type: topic, alternate_exchange: rest, arguments: {x-any: 1}}
          rest: {type: fanout, durable: false}
          theirs: {external: true}
        queues:
          q:
            bindings:
              - {exchange: events, routing_key: "a.*"}
              - {exchange: rest}
              - {exchange: theirs, routing_key: k, arguments: {x-match: any, n: 1}}
    """)
    exchanges = topology.desired.exchanges
    assert exchanges["events"].arguments == {"x-any": 1, "alternate-exchange": "rest", STAMP: "shop"}
    assert not exchanges["rest"].durable
    assert "theirs" not in exchanges
    assert topology.required_exchanges == ("theirs",)
    assert topology.desired.bindings[:3] == (
        Binding(source="events", destination="q", routing_key="a.*"),
        Binding(source="rest", destination="q"),
        Binding(source="theirs", destination="q", routing_key="k", arguments={"x-match": "any", "n": 1}),
    )


def test_equal_bindings_are_one() -> None:
    topology = compiled(
        "queues: {q: {retry: none, bindings: [{exchange: amq.topic, routing_key: k}, {exchange: amq.topic, "
        "routing_key: k}]}}"
    )
    assert len([each for each in topology.desired.bindings if each.source == "amq.topic"]) == 1


def test_defaults_reach_queues_key_by_key() -> None:
    topology = compiled("""
        defaults:
          queue:
            type: classic
            limits: {max_length: 5, overflow: drop-head}
            delivery_limit: 7
            consumer_timeout: 10m
          retry: none
          parking: {type: classic}
        settings: arguments
        queues:
          a:
          b: {limits: {max_length_bytes: 1KiB}, parking: {queue: p}}
          c: {type: quorum, limits: {overflow: reject-publish, max_length: 6}}
    """)
    queues = topology.desired.queues
    assert queues["a"].arguments == {
        "x-queue-type": "classic",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "a.parking",
        "x-overflow": "drop-head",
        "x-max-length": 5,
        STAMP: "shop",
    }
    assert (queues["b"].arguments["x-max-length"], queues["b"].arguments["x-max-length-bytes"]) == (5, 1024)
    assert queues["p"].type == "classic"
    assert queues["c"].arguments["x-delivery-limit"] == 7
    assert (queues["c"].arguments["x-max-length"], queues["c"].arguments["x-consumer-timeout"]) == (6, 600_000)
    assert [topology.routes[name].consumer_timeout_ms for name in "ac"] == [None, 600_000]


def test_arguments_are_passed_through() -> None:
    topology = compiled("queues: {q: {retry: none, arguments: {x-message-ttl: 1000, mine: [1]}}}")
    arguments = topology.desired.queues["q"].arguments
    assert (arguments["x-message-ttl"], arguments["mine"]) == (1000, [1])
    single = compiled("queues: {q: {retry: none, single_active_consumer: true}}")
    assert single.desired.queues["q"].arguments["x-single-active-consumer"] is True


def test_native_retry_has_no_retry_queues_and_a_limit_above_its_retries() -> None:
    topology = compiled("""
        retry_policies:
          n:
            engine: native
            delay: {min: 1s, max: 30s}
            retries: 8
            on: [{errors: [ValueError], park: bad}]
        queues: {q: {retry: n}}
    """)
    routes = topology.routes["q"]
    assert routes.native == NativeRetry(min_ms=1000, max_ms=30_000, retries=8)
    assert (routes.steps, routes.tiers, routes.rules[0].park) == ((), (), "bad")
    assert topology.desired.queues["q"].arguments["x-delivery-limit"] == 50
    (policy,) = topology.desired.policies.values()
    assert policy.definition == {
        "delayed-retry-type": "failed",
        "delayed-retry-min": 1000,
        "delayed-retry-max": 30_000,
        "delivery-limit": 28,
    }
    assert topology.native_marker == "shop.native"
    assert topology.desired.exchanges["shop.native"].type == "direct"


def test_the_retries_of_a_native_queue_can_be_changed_in_place() -> None:
    def arguments(retries: int) -> dict[str, object]:
        topology = compiled(f"""
            retry_policies: {{n: {{engine: native, delay: {{min: 1s, max: 30s}}, retries: {retries}}}}}
            queues: {{q: {{retry: n}}}}
        """)
        return dict(topology.desired.queues["q"].arguments)

    assert arguments(8) == arguments(30)
    assert arguments(31)["x-delivery-limit"] == 51


def test_an_existing_queue_is_built_around_and_never_declared() -> None:
    topology = compiled(STANDARD + "queues: {q: {retry: p, existing: true, limits: {max_length: 9}}}")
    desired = topology.desired
    assert set(desired.queues) == {"q.retry.5s", "q.retry.30s", "q.parking"}
    assert Binding(source="shop.retry", destination="q", routing_key="q") in desired.bindings
    (policy,) = desired.policies.values()
    assert policy.definition == {
        "dead-letter-exchange": "",
        "dead-letter-routing-key": "q.parking",
        "dead-letter-strategy": "at-least-once",
        "delivery-limit": 50,
        "max-length": 9,
        "overflow": "reject-publish",
    }
    assert topology.required_queues == ("q",)
    assert (topology.routes["q"].existing, topology.routes["q"].at_least_once) == (True, False)


def test_an_existing_classic_queue_gets_no_key_its_type_does_not_know() -> None:
    topology = compiled("queues: {q: {retry: none, type: classic, existing: true}}")
    (policy,) = topology.desired.policies.values()
    assert policy.definition == {"dead-letter-exchange": "", "dead-letter-routing-key": "q.parking"}


def test_an_external_queue_goes_by_its_owners_exchanges() -> None:
    topology = compiled(STANDARD + "queues: {q: {retry: p, external: true, owner: billing}}")
    routes = topology.routes["q"]
    assert (routes.retry_exchange, routes.parking_exchange) == ("billing.retry", "billing.parking")
    assert (routes.parking_queue, [tier.queue for tier in routes.tiers]) == (
        "q.parking",
        ["q.retry.5s", "q.retry.30s"],
    )
    assert not topology.desired.queues
    assert not topology.desired.bindings
    assert not topology.desired.exchanges
    assert not topology.desired.policies
    assert (topology.required_queues, topology.parking_queues) == (("q",), ())
    assert routes.owner == "billing"


def test_our_policy_carries_keys_of_another() -> None:
    topology = compiled(
        """
        policy_priority: 21
        defaults: {queue: {policy: {message-ttl: 9}}, retry: none}
        queues:
          a: {limits: {max_length: 5}, policy: {queue-leader-locator: balanced}}
          b: {}
        """
    )
    found = {policy.pattern: (policy.priority, policy.definition) for policy in topology.desired.policies.values()}
    assert found == {
        "^(?:a)$": (21, {"max-length": 5, "queue-leader-locator": "balanced"}),
        "^(?:b)$": (21, {"message-ttl": 9}),
    }


def test_an_existing_queue_without_policies_keeps_what_it_has() -> None:
    """settings: arguments is for users who cannot write policies, and its arguments stay."""
    topology = compiled("settings: arguments\nqueues: {q: {retry: none, existing: true}}")
    assert not topology.desired.policies
    assert set(topology.desired.queues) == {"q.parking"}


def test_an_external_queue_of_an_unknown_owner_goes_by_the_default_exchange() -> None:
    routes = compiled(STANDARD + "queues: {q: {retry: p, external: true}}").routes["q"]
    assert (routes.retry_exchange, routes.parking_exchange) == ("", "")


def test_the_virtual_host_is_the_urls_when_the_file_names_none() -> None:
    assert compiled("queues: {}").vhost == ""
    assert compiled("vhost: /\nqueues: {}").vhost == "/"


def test_a_delivery_limit_is_always_written() -> None:
    for name, queue in compiled(STANDARD + "queues: {a: {retry: p}, b: {retry: none}}").desired.queues.items():
        if ".retry." not in name:
            assert isinstance(queue.arguments["x-delivery-limit"], int)


_names = st.text(alphabet="abz.-_", min_size=1, max_size=12)
_queues = st.fixed_dictionaries(
    {"retry": st.sampled_from(["p", "none", "j"])},
    optional={
        "type": st.sampled_from(["quorum", "classic"]),
        "limits": st.fixed_dictionaries({"max_length": st.integers(1, 9)}),
        "consumer_timeout": st.just("5m"),
        "parking": st.fixed_dictionaries({"queue": st.sampled_from(["P", "R"])}),
    },
)


@given(st.dictionaries(_names, _queues, max_size=12))
def test_the_same_file_always_compiles_to_the_same_values(queues: dict[str, object]) -> None:
    import json

    text = HEAD + (
        "retry_policies: {p: {delays: [5s, 30s]}, j: {delays: [1m], jitter: 20%}}\n" + f"queues: {json.dumps(queues)}\n"
    )
    first, second = check(text), check(text)
    assert repr(first) == repr(second)
    for topology in first.topologies:
        declared = topology.desired.queues
        for routes in topology.routes.values():
            # whatever a consumer will publish to is there, and is reached by its own name
            for name in (routes.parking_queue, *(tier.queue for tier in routes.tiers)):
                assert name in declared
            keys = {(each.source, each.routing_key, each.destination) for each in topology.desired.bindings}
            assert {("shop.retry", tier.queue, tier.queue) for tier in routes.tiers} <= keys
            assert ("shop.parking", routes.parking_queue, routes.parking_queue) in keys
            assert ("shop.retry", routes.queue, routes.queue) in keys
        assert all(queue.arguments[STAMP] == "shop" and queue.arguments["x-queue-type"] for queue in declared.values())
        assert not any("x-expires" in queue.arguments for queue in declared.values())
