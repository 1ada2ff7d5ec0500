from __future__ import annotations

from pathlib import Path

import pytest

from amqpflow.errors import RefusedError
from amqpflow.node.directory import kept, temporary
from amqpflow.node.settings import Ports

PORTS = Ports(amqp=20001, management=20002, distribution=20003, epmd=20004)


def test_a_kept_node_is_the_same_one_next_time(tmp_path: Path) -> None:
    first = kept(tmp_path / "node")
    first.write(PORTS)
    first.remember(PORTS, "4.3.6")
    first.discard()
    again = kept(tmp_path / "node")
    assert (again.identity, again.ports, again.version) == (first.identity, PORTS, "4.3.6")
    again.discard()


def test_what_holds_the_password_is_ours_to_read_alone(tmp_path: Path) -> None:
    node = kept(tmp_path / "node")
    node.write(PORTS)
    node.discard()
    holding = [file for file in node.path.iterdir() if file.is_file() and node.identity.password in file.read_text()]
    assert {file.name for file in holding} == {"rabbitmq.conf", "amqpflow-node.json"}
    assert [oct(file.stat().st_mode & 0o077) for file in (node.path, *holding)] == ["0o0"] * 3


def test_two_nodes_cannot_share_a_directory(tmp_path: Path) -> None:
    first = kept(tmp_path / "node")
    with pytest.raises(RefusedError, match="in use by another node"):
        kept(tmp_path / "node")
    first.discard()
    kept(tmp_path / "node").discard()


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RefusedError, match="is not empty"):
        kept(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_directory_says_which_file(tmp_path: Path) -> None:
    (tmp_path / "amqpflow-node.json").write_text('{"node": ')
    with pytest.raises(RefusedError, match=r"amqpflow-node\.json is damaged"):
        kept(tmp_path)
    (tmp_path / "amqpflow-node.json").write_text('{"node": "a@localhost", "ports": [1, 2]}')
    with pytest.raises(RefusedError, match="is damaged"):
        kept(tmp_path)


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError, match="cannot keep data"):
        kept(tmp_path / "file")


def test_temporary_nodes_differ_and_go() -> None:
    first, second = temporary(), temporary()
    assert first.identity.name != second.identity.name
    assert first.identity.password != second.identity.password
    for node in (first, second):
        node.write(PORTS)
        node.discard()
        assert not node.path.exists()


def test_the_log_tail_is_the_brokers_own_summary(tmp_path: Path) -> None:
    node = kept(tmp_path / "node")
    assert node.log_tail() == ""
    node.log.write_text("noise\n" * 50 + "last\n")
    assert node.log_tail().splitlines()[-1] == "last"
    prefix = "2026-11-22 19:36:18.998148+00:00 [error] <0.132.0> "
    boot = f"{prefix}BOOT FAILED\n{prefix}===========\n{prefix}Error: reason\n===========\nError: reason\n"
    node.log.write_text("noise\n" * 50 + boot + "stack\n" * 50)
    assert node.log_tail().splitlines() == ["BOOT FAILED", "Error: reason", "stack"]
    node.discard()
