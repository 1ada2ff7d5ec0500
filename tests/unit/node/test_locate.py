"""Finding RabbitMQ by looking at files, in trees as the packages lay them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqpflow.node.locate import Installation, Missing, locate, version_of


def executable(file: Path, text: str = "#!/bin/sh\nexit 99\n") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def distribution(home: Path) -> Path:
    executable(home / "sbin" / "rabbitmq-env")
    return executable(home / "sbin" / "rabbitmq-server")


def found(root: Path, **environ: str) -> Installation:
    installation = locate({"PATH": str(root / "usr/bin"), **environ}, root)
    assert isinstance(installation, Installation), installation
    return installation


@pytest.fixture
def erlang(tmp_path: Path) -> Path:
    executable(tmp_path / "usr/bin/epmd")
    return executable(tmp_path / "usr/bin/erl")


DEBIAN = "usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8"


def test_debian(tmp_path: Path, erlang: Path) -> None:
    server = distribution(tmp_path / DEBIAN)
    installation = found(tmp_path)
    assert installation.server == server
    assert installation.version == "3.10.8"
    assert (installation.erl, installation.epmd) == (erlang, erlang.with_name("epmd"))


def test_debians_wrapper_is_not_a_server(tmp_path: Path, erlang: Path) -> None:
    executable(tmp_path / "usr/sbin/rabbitmq-server")
    missing = locate({"PATH": f"{tmp_path}/usr/sbin:{tmp_path}/usr/bin"}, tmp_path)
    assert missing == Missing(reason="no rabbitmq-server is installed")


def test_the_newest_of_several(tmp_path: Path, erlang: Path) -> None:
    for version in ("3.9.13", "4.0.5", "3.13.7"):
        distribution(tmp_path / f"opt/rabbitmq_server-{version}")
    assert found(tmp_path).version == "4.0.5"


def test_homebrew_names_the_version_behind_a_link(tmp_path: Path, erlang: Path) -> None:
    cellar = tmp_path / "opt/homebrew/Cellar/rabbitmq/4.1.2"
    distribution(cellar)
    link = tmp_path / "opt/homebrew/opt/rabbitmq"
    link.parent.mkdir()
    link.symlink_to(cellar)
    assert found(tmp_path).version == "4.1.2"


def test_rabbitmq_home_comes_first(tmp_path: Path, erlang: Path) -> None:
    distribution(tmp_path / DEBIAN)
    mine = distribution(tmp_path / "srv/rabbitmq_server-4.2.0")
    assert found(tmp_path, RABBITMQ_HOME=str(mine.parent.parent)).version == "4.2.0"


def test_a_distribution_in_path(tmp_path: Path, erlang: Path) -> None:
    server = distribution(tmp_path / "home/me/rabbitmq")
    (tmp_path / "home/me/rabbitmq/plugins/rabbit-4.3.1").mkdir(parents=True)
    installation = found(tmp_path, PATH=f"{server.parent}:{erlang.parent}")
    assert (installation.server, installation.version) == (server, "4.3.1")


def test_a_link_in_path_leads_to_its_distribution(tmp_path: Path, erlang: Path) -> None:
    server = distribution(tmp_path / "srv/rabbitmq_server-4.0.9")
    (tmp_path / "usr/bin/rabbitmq-server").symlink_to(server)
    assert found(tmp_path).server == server


def test_erlang_is_found_although_path_is_short(tmp_path: Path, erlang: Path) -> None:
    distribution(tmp_path / DEBIAN)
    assert found(tmp_path, PATH="").erl == erlang


def test_without_erlang_the_message_says_so(tmp_path: Path) -> None:
    distribution(tmp_path / DEBIAN)
    missing = locate({"PATH": ""}, tmp_path)
    assert isinstance(missing, Missing)
    assert "`erl`" in missing.reason
    assert DEBIAN in missing.reason


def test_epmd_that_only_erlang_itself_has(tmp_path: Path) -> None:
    distribution(tmp_path / DEBIAN)
    erl = executable(tmp_path / "usr/lib/erlang/bin/erl")
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/erl").symlink_to(erl)
    epmd = executable(tmp_path / "usr/lib/erlang/erts-13.1.5/bin/epmd")
    assert found(tmp_path).epmd == epmd


def test_nothing_is_executed(tmp_path: Path) -> None:
    trace = tmp_path / "was-run"
    script = f"#!/bin/sh\ntouch {trace}\n"
    for name in ("usr/bin/erl", "usr/bin/epmd", f"{DEBIAN}/sbin/rabbitmq-server", f"{DEBIAN}/sbin/rabbitmq-env"):
        executable(tmp_path / name, script)
    found(tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "version"),
    [("rabbitmq_server-4.3.0-rc.1", "4.3.0-rc.1"), ("rabbitmq_server-3.13.7", "3.13.7"), ("rabbitmq", "")],
)
def test_versions_of_directories(tmp_path: Path, name: str, version: str) -> None:
    (tmp_path / name).mkdir()
    assert version_of(tmp_path / name) == version
