"""Files that are applied side by side."""

from __future__ import annotations

from amqpflow.topology.check import Checked, check_files


def check(**files: str) -> Checked:
    named = [(f"{name}.yaml", f"version: 1\n{text}".encode()) for name, text in files.items()]
    return check_files(named, {})


def codes(checked: Checked) -> list[tuple[str, str]]:
    return [(each.place.file, each.code) for each in checked.diagnostics]


def test_files_that_share_nothing_are_compiled_in_their_order() -> None:
    checked = check(b="name: b\nqueues: {b.q: {retry: none}}\n", a="name: a\nqueues: {a.q: {retry: none}}\n")
    assert [topology.name for topology in checked.topologies] == ["b", "a"]


def test_one_name_is_one_topology() -> None:
    same = "name: a\nqueues: {q: {retry: none}}\n"
    checked = check(one=same, two=same)
    assert codes(checked) == [("two.yaml", "T208")]
    assert "one.yaml is a topology called a as well" in checked.diagnostics[0].message
    assert not checked.topologies
    assert codes(check(one="vhost: x\n" + same, two="vhost: y\n" + same)) == []


def test_a_queue_has_one_owner() -> None:
    checked = check(a="name: a\nqueues: {q: {retry: none}}\n", b="name: b\nqueues:\n  q: {retry: none}\n")
    assert codes(checked) == [("b.yaml", "T207"), ("b.yaml", "T207")]
    assert [each.message for each in checked.diagnostics] == [
        "the parking queue of q is the queue q.parking, which topology a owns",
        "work queue q is the queue q, which topology a owns",
    ]
    assert checked.diagnostics[0].hint.startswith("see a.yaml line 3")


def test_derived_names_collide_across_files() -> None:
    retries = "retry_policies: {p: {delays: [5s]}}\n"
    checked = check(
        a="name: a\nqueues: {q.retry.5s: {retry: none}, x: {retry: none, parking: {queue: q.parking}}}\n",
        b="name: b\n" + retries + "queues: {q: {retry: p}}\n",
        c="name: c\nexchanges: {a.retry: {type: direct}}\n",
    )
    assert sorted({(file, code) for file, code in codes(checked)}) == [("b.yaml", "T207"), ("c.yaml", "T207")]
    assert len(codes(checked)) == 3


def test_another_virtual_host_is_another_world() -> None:
    checked = check(
        a="name: a\nvhost: x\nqueues: {q: {retry: none}}\n", b="name: b\nvhost: y\nqueues: {q: {retry: none}}\n"
    )
    assert codes(checked) == []


def test_what_another_topology_owns_is_external() -> None:
    owner = "name: a\nexchanges: {e: {type: topic}}\nqueues: {q: {retry: none}}\n"
    user = (
        "name: b\nexchanges: {e: {external: true}}\n"
        "queues: {q: {external: true, owner: a, retry: none}, "
        "mine: {retry: none, bindings: [{exchange: e, routing_key: k}]}}\n"
    )
    assert codes(check(a=owner, b=user)) == []
    assert codes(check(b=user, a=owner)) == []


def test_an_external_queue_is_in_the_file_of_its_owner() -> None:
    checked = check(
        a="name: a\nqueues: {orders: {retry: none}}\n",
        b="name: b\nqueues: {order: {external: true, owner: a, retry: none}}\n",
    )
    assert codes(checked) == [("b.yaml", "T303")]
    assert checked.diagnostics[0].hint == "did you mean orders?"


def test_an_error_in_one_file_leaves_nothing_compiled_and_the_others_checked() -> None:
    checked = check(a="name: a\nnope: 1\n", b="name: b\nqueues: {q: {}}\n", c="[")
    assert codes(checked) == [("a.yaml", "T101"), ("b.yaml", "T305"), ("c.yaml", "T004")]
    assert not checked.topologies
