"""`amqpflow dev`, run as a program."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amqpflow.node.locate import Installation, locate
from amqpflow.rabbitmq.address import BrokerAddress
from tests.brokers.management import Management
from tests.brokers.processes import belonging_to, wait_until_gone
from tests.brokers.selection import BrokerUnderTest

TOPOLOGY = """
version: 1
name: orders
vhost: shop
exchanges:
  orders.events: {type: topic}
queues:
  orders.confirm:
    bindings: [{exchange: orders.events, routing_key: order.placed}]
"""


@pytest.fixture(scope="module")
def installation() -> Installation:
    found = locate()
    if not isinstance(found, Installation):
        pytest.skip(f"a private node needs a RabbitMQ installed here: {found.reason}")
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Ours without any broker in it, and with a place of its own for temporary files."""
    (tmp_path / "tmp").mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AMQPFLOW", "RABBITMQ"))}
    return {**inherited, "TMPDIR": str(tmp_path / "tmp"), "PYTHONUNBUFFERED": "1"}


class Dev:
    """A running `amqpflow dev` and what it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return
        raise AssertionError(f"dev ended without {text!r}:\n" + "\n".join(self.lines))

    @property
    def address(self) -> BrokerAddress:
        """As another terminal would take it from the export lines."""
        exports = dict(line.removeprefix("export ").split("=", 1) for line in self.lines if line.startswith("export "))
        return BrokerAddress(
            url=exports["AMQPFLOW_URL"], source="test", management_url=exports["AMQPFLOW_MANAGEMENT_URL"]
        )

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=120)
        self.lines += output.splitlines()
        return self.process.returncode


@contextmanager
def heeding_hangups() -> Iterator[None]:
    """What is started meanwhile does not ignore SIGHUP, which it would where nohup runs the tests."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextmanager
def dev(*arguments: str | Path, environment: dict[str, str], command: list[str] | None = None) -> Iterator[Dev]:
    program = command or [sys.executable, "-m", "amqpflow"]
    with heeding_hangups():
        process = subprocess.Popen(
            [*program, "dev", *map(str, arguments)],
            env=environment,
            cwd=Path(__file__).parents[2] if command is None else "/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    watchdog = threading.Timer(200, process.kill)
    watchdog.start()
    try:
        yield Dev(process)
    finally:
        watchdog.cancel()
        watchdog.join()
        if process.poll() is None:
            process.kill()
        process.communicate()


def node_in(environment: dict[str, str]) -> Path:
    (directory,) = Path(environment["TMPDIR"]).glob("amqpflow-node-*")
    return directory


def owner(process: int) -> int | None:
    """The user of a process; None when it has ended, as what Erlang starts to look at the machine soon has."""
    try:
        return Path(f"/proc/{process}").stat().st_uid
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_starts_prints_how_to_reach_it_and_is_gone_on_a_signal(
    installation: Installation, environment: dict[str, str], number: signal.Signals
) -> None:
    with dev(environment=environment) as running:
        running.read_until("Ctrl-C stops it.")
        text = "\n".join(running.lines)
        assert f"RabbitMQ {installation.version}" in text
        assert "Not for production" in text
        assert Management(running.address).get("overview")["rabbitmq_version"] == installation.version
        directory = node_in(environment)
        assert running.stop(number) == 0
        assert belonging_to(directory) == {}
        assert not directory.exists()


def test_killed_it_still_leaves_nothing(installation: Installation, environment: dict[str, str]) -> None:
    with dev(environment=environment) as running:
        running.read_until("Ctrl-C stops it.")
        directory = node_in(environment)
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until_gone(directory)


def test_interrupted_while_starting_it_is_130_and_leaves_nothing(
    installation: Installation, environment: dict[str, str]
) -> None:
    with dev(environment=environment) as running:
        while not list(Path(environment["TMPDIR"]).glob("amqpflow-node-*/console.log")):
            time.sleep(0.01)
        directory = node_in(environment)
        assert running.stop(signal.SIGINT) == 130
    # interrupted between starting the keeper and taking note of it, nobody waits for the keeper; it ends all the same
    wait_until_gone(directory)


def test_a_file_is_applied_in_the_virtual_host_it_names(
    installation: Installation, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "topology.yaml").write_text(TOPOLOGY)
    with dev(tmp_path / "topology.yaml", environment=environment) as running:
        running.read_until("Ctrl-C stops it.")
        applied = [line for line in running.lines if line.startswith("Applied ")]
        assert len(applied) == 1
        assert "1 binding" in applied[0] or "bindings" in applied[0]
        queues = {queue["name"] for queue in Management(running.address).get("queues", "shop")}
        assert {"orders.confirm", "orders.confirm.parking"} <= queues
        assert running.stop(signal.SIGINT) == 0


def test_a_file_with_errors_starts_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text("version: 1\nname: orders\nqueus: {}\n")
    with dev(tmp_path / "topology.yaml", environment=environment) as running:
        running.process.wait(60)
        assert running.process.returncode == 1
        assert running.process.stdout is not None
        assert "topology.yaml:3:1" in running.process.stdout.read()
    assert not list(Path(environment["TMPDIR"]).glob("amqpflow-node-*"))


def test_the_ready_file_appears_with_the_broker_and_goes_with_it(
    installation: Installation, environment: dict[str, str], tmp_path: Path
) -> None:
    ready = tmp_path / "broker.env"
    with dev("--ready-file", ready, environment=environment) as running:
        running.read_until("Ctrl-C stops it.")
        sourced = subprocess.run(
            ["/bin/sh", "-c", f". {ready}; echo $AMQPFLOW_URL"], capture_output=True, text=True, check=True
        )
        assert sourced.stdout.strip() == running.address.url
        assert ready.stat().st_mode & 0o077 == 0
        assert running.stop(signal.SIGINT) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["tmp"]


@pytest.mark.one_broker
def test_a_given_broker_is_used_and_left_alone(
    broker: BrokerUnderTest, vhost: BrokerAddress, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "topology.yaml").write_text(TOPOLOGY.replace("vhost: shop\n", ""))
    where = ("--url", vhost.url, "--management-url", vhost.management_candidates()[-1])
    elsewhere = {**environment, "AMQPFLOW_MANAGEMENT_URL": "http://not.used.invalid:15672"}
    with dev(tmp_path / "topology.yaml", *where, environment=elsewhere) as running:
        running.process.wait(60)
        assert running.process.stdout is not None
        text = running.process.stdout.read()
        assert running.process.returncode == 0, text
    assert "did not start it" in text
    assert "AMQPFLOW_MANAGEMENT_URL is not used: --management-url names another." in text
    assert f"{vhost.user}:***@" in text
    assert f":{vhost.password}@" not in text
    assert "Applied" in text
    assert any(queue["name"] == "orders.confirm" for queue in Management(vhost).get("queues", vhost.vhost))


@pytest.mark.one_broker
@pytest.mark.parametrize("form", ["value", "file"])
def test_a_broker_that_the_environment_names_is_not_touched(
    installation: Installation, vhost: BrokerAddress, environment: dict[str, str], tmp_path: Path, form: str
) -> None:
    """What a shell exports for other commands may be production."""
    (tmp_path / "topology.yaml").write_text(TOPOLOGY.replace("vhost: shop\n", ""))
    (tmp_path / "url").write_text(vhost.url)
    named = {"AMQPFLOW_URL": vhost.url} if form == "value" else {"AMQPFLOW_URL_FILE": str(tmp_path / "url")}
    named["AMQPFLOW_MANAGEMENT_URL"] = vhost.management_candidates()[-1]
    with dev(tmp_path / "topology.yaml", environment={**environment, **named}) as running:
        running.read_until("Ctrl-C stops it.")
        ignored = f"{next(iter(named))} and AMQPFLOW_MANAGEMENT_URL are not used: --url names a broker to use."
        assert ignored in running.lines
        assert {each["name"] for each in Management(running.address).get("queues", "/")} >= {"orders.confirm"}
        assert running.stop(signal.SIGINT) == 0
    assert Management(vhost).get("queues", vhost.vhost) == []


def test_with_nothing_to_start_it_names_the_one_command(environment: dict[str, str], tmp_path: Path) -> None:
    """A machine without RabbitMQ and Docker: the places where they are looked for are emptied."""
    script = """
import amqpflow.node.start as start
from amqpflow.cli.main import main
from amqpflow.node.locate import Missing
start.locate = lambda *_: Missing(reason="no rabbitmq-server is installed")
main(["dev"])
"""
    environment["DOCKER_HOST"] = f"unix://{tmp_path}/no-docker.sock"
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "there is no RabbitMQ to start: no rabbitmq-server is installed" in result.stderr
    assert "install" in result.stderr.splitlines()[-1]


def test_a_kept_directory_that_is_somebody_elses_is_refused(
    installation: Installation, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "tmp" / "thesis.tex").write_text("x")
    with dev("--keep", tmp_path / "tmp", environment=environment) as running:
        running.process.wait(60)
        assert running.process.stdout is not None
        assert "is not empty and was not made by amqpflow dev" in running.process.stdout.read()
        assert running.process.returncode == 4


def test_an_ordinary_user_can(
    installation: Installation, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As nobody, with a copy of what `dev` imports where nobody can read it."""
    if os.geteuid() != 0:
        pytest.skip("the other tests have just shown it: they do not run as root")
    base = Path("/var/tmp") / f"amqpflow-nobody-{os.getpid()}"
    # env, because setpriv itself still executes with root's rights
    nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "env"]
    try:
        for package in ("amqpflow", "click", "pamqp"):
            spec = importlib.util.find_spec(package)
            assert spec is not None
            assert spec.origin is not None
            # without what other processes are about to rename, which would be gone when it is copied
            ignored = shutil.ignore_patterns("*.pyc.*")
            shutil.copytree(Path(spec.origin).parent, base / "lib" / package, ignore=ignored)
        (base / "tmp").mkdir(mode=0o777)
        for file in (base, *base.rglob("*")):
            file.chmod(0o777 if file.name == "tmp" else 0o755)
        python = next(
            (
                candidate
                for candidate in (sys.executable, os.path.realpath(sys.executable), "/usr/bin/python3")
                if subprocess.run(
                    [*nobody, candidate, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
                    check=False,
                    stderr=subprocess.DEVNULL,
                ).returncode
                == 0
            ),
            None,
        )
        if python is None:
            pytest.skip("no Python 3.11 or later that nobody may run")
        (base / "locked").mkdir(mode=0o700)
        environment |= {
            "TMPDIR": str(base / "tmp"),
            "PYTHONPATH": str(base / "lib"),
            "PATH": f"{base / 'locked'}:{environment['PATH']}",  # where nobody may not even look
            "HOME": "/nonexistent",
        }
        with dev(environment=environment, command=[*nobody, python, "-m", "amqpflow"]) as running:
            running.read_until("Ctrl-C stops it.")
            directory = node_in(environment)
            assert set(map(owner, belonging_to(directory))) - {None} == {65534}
            assert Management(running.address).get("overview")
            assert running.stop(signal.SIGINT) == 0
            wait_until_gone(directory)
    finally:
        shutil.rmtree(base, ignore_errors=True)
