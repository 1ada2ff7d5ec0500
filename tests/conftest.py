"""Fixtures and rules that every test shares: the brokers under test, a virtual host of one's own, and no leaks."""

from __future__ import annotations

import asyncio
import asyncio.runners
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from amqpflow.node import BrokerContext
from amqpflow.node.locate import Installation, locate
from amqpflow.node.settings import STATISTICS_INTERVAL
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.provisioning import drain
from tests import order
from tests.brokers.own_node import OwnNode
from tests.brokers.selection import BrokerUnderTest, Candidate, NoBroker, find_candidates, matches, parse_version
from tests.brokers.shared_node import SharedNode, shared_node
from tests.bytecode import keep_bytecode
from tests.progress import Progress

# a busy machine is no failure; continuous integration tries the same examples each time, and people try new ones
settings.register_profile(
    "amqpflow", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("amqpflow")

MARKERS = (
    "one_broker: run on the newest broker under test only; for what does not depend on the release",
    "releases(condition): run on brokers whose version fits, for example releases('>=4.3') or releases('>=3.10, <4')",
    "on_broker: runs on the brokers under test; set on every test that does",
    "timing: measures time; runs after the other tests, one such test after the other",
    "leaves_threads(reason): the test may end with threads running",
    "leaves_tasks(reason): the test may end an event loop with tasks pending",
)


class BrokersUnderTest:
    """What was found once a session, and what was left out and why."""

    def __init__(self) -> None:
        self.candidates: tuple[Candidate, ...] = ()
        self.problem = ""
        self.left_out: Counter[str] = Counter()
        try:
            self.candidates = find_candidates()
        except NoBroker as error:
            self.problem = str(error)


BROKERS = pytest.StashKey[BrokersUnderTest]()
SHARED = pytest.StashKey[SharedNode | None]()
_NONE = Candidate(version=(), description="no broker")


def pytest_configure(config: pytest.Config) -> None:
    keep_bytecode()
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    config.stash[BROKERS] = BrokersUnderTest()
    config.pluginmanager.register(order)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config))
    # the background job of a shell ignores Ctrl-C, and so would the commands that tests interrupt
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> list[str]:
    brokers = config.stash[BROKERS]
    if brokers.problem:
        return [f"brokers: NONE: {brokers.problem.splitlines()[0]}"]
    return [f"broker {candidate.release}: {candidate.description}" for candidate in brokers.candidates]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "broker" in metafunc.fixturenames:
        candidates = metafunc.config.stash[BROKERS].candidates or (_NONE,)
        metafunc.parametrize(
            "broker", candidates, indirect=True, ids=[candidate.release for candidate in candidates], scope="session"
        )


def pytest_itemcollected(item: pytest.Item) -> None:
    if _candidate(item) is not None:
        item.add_marker("on_broker")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Choose when all others have chosen; `order` comes after that."""
    yield
    _choose_brokers(config, items)


def _choose_brokers(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the brokers that a test does not want, and say so; without any broker, stop instead of skipping."""
    brokers = config.stash[BROKERS]
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        candidate = _candidate(item)
        if candidate is _NONE and not config.option.collectonly and not hasattr(config, "workerinput"):
            _stop_without_broker(item.nodeid, brokers)
        if candidate is None or candidate is _NONE or _wanted(item, candidate, brokers):
            kept.append(item)
        else:
            deselected.append(item)
    items[:] = kept
    if deselected:
        config.hook.pytest_deselected(items=deselected)


def _stop_without_broker(test: str, brokers: BrokersUnderTest) -> None:
    pytest.exit(f"{test} needs a RabbitMQ, and there is none.\n{brokers.problem}", returncode=1)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker where it finds the node that all of them share."""
    if (shared := _shared_node(node.config)) is not None:
        node.workerinput["shared_node"] = str(shared.file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Start the node that all workers share if a test needs it.

    A worker that exits is an internal error to xdist, so it is the controller that stops without a broker.
    """
    shared = _shared_node(node.config)
    for test in ids:
        if f"[{_NONE.release}" in test:
            _stop_without_broker(test, node.config.stash[BROKERS])
        if shared is not None and f"[{node.config.stash[BROKERS].candidates[0].release}" in test:
            shared.start()


def _shared_node(config: pytest.Config) -> SharedNode | None:
    if SHARED not in config.stash:
        found = next((each.found for each in config.stash[BROKERS].candidates), None)
        config.stash[SHARED] = None if found is None else SharedNode(found)
    return config.stash[SHARED]


def pytest_unconfigure(config: pytest.Config) -> None:
    if (shared := config.stash.get(SHARED, None)) is not None:
        shared.stop()


def _candidate(item: pytest.Item) -> Candidate | None:
    callspec = getattr(item, "callspec", None)
    candidate = callspec.params.get("broker") if callspec else None
    return candidate if isinstance(candidate, Candidate) else None


def _wanted(item: pytest.Item, candidate: Candidate, brokers: BrokersUnderTest) -> bool:
    conditions = ", ".join(mark.args[0] for mark in item.iter_markers("releases"))
    fitting = [other for other in brokers.candidates if not conditions or matches(other.version, conditions)]
    if candidate not in fitting:
        brokers.left_out[f"not on {candidate.release}: they want {conditions}"] += 1
        return False
    if item.get_closest_marker("one_broker") and candidate is not fitting[-1]:
        brokers.left_out[f"not on {candidate.release}: they run on the newest release alone"] += 1
        return False
    return True


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many workers as are worth while for `-n auto`: most tests wait for a broker, most of the time."""
    return min(6, 2 * (os.cpu_count() or 1))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Each worker collects all of the tests, so what one of them left out is what all did."""
    node.config.stash[BROKERS].left_out = Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_out"] = dict(session.config.stash[BROKERS].left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for reason, count in sorted(config.stash[BROKERS].left_out.items()):
        terminalreporter.line(f"{count} tests {reason}")


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[BrokerUnderTest]:
    """A RabbitMQ: each one under test in turn. A private node is started once a run, and stopped at its end."""
    candidate: Candidate = request.param
    if (file := getattr(request.config, "workerinput", {}).get("shared_node")) is not None:
        yield shared_node(Path(file))
        return
    if candidate.address is not None:
        yield BrokerUnderTest(address=candidate.address, version=candidate.version, description=candidate.description)
        return
    assert candidate.found is not None
    with BrokerContext(candidate.found) as node:
        yield BrokerUnderTest(address=node.address, version=parse_version(node.version), description=node.description)


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnNode]:
    """A node of the module's own, to be stopped and killed. A module's CONFIGURATION is lines of its rabbitmq.conf."""
    found = locate()
    if not isinstance(found, Installation):
        pytest.skip(f"a node of our own needs a RabbitMQ installed here: {found.reason}")
    own = OwnNode(found, tmp_path_factory.mktemp("own") / "node", getattr(request.module, "CONFIGURATION", ""))
    own.start()
    try:
        yield own
    finally:
        own.stop()


@pytest.fixture
def vhost(broker: BrokerUnderTest) -> Iterator[BrokerAddress]:
    """The address of an empty virtual host, deleted (and every connection to it closed) after the test."""
    name = f"amqpflow-test-{os.getpid()}-{uuid4().hex[:8]}"
    management = broker.management
    management.put("vhosts", name)
    try:
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        management.put("permissions", name, broker.address.user, body=everything)
        yield broker.address.with_vhost(name)
    finally:
        for parameter in management.get("global-parameters") or ():
            if parameter["name"].startswith(f"amqpflow.{name}"):
                management.delete("global-parameters", parameter["name"])
        management.delete("vhosts", name)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Journals of replays are not left in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def statistics_lag(request: pytest.FixtureRequest) -> Iterator[None]:
    """Wait for statistics as long as the brokers under test take for them (fact 11.7), and no longer."""
    given = request.config.stash[BROKERS].candidates and request.config.stash[BROKERS].candidates[0].address
    seconds = float(os.environ.get("AMQPFLOW_TEST_STATISTICS") or 5) if given else STATISTICS_INTERVAL / 1000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drain, "STATISTICS_LAG", min(2 * seconds + 1, drain.STATISTICS_LAG))
        yield


@pytest.fixture(autouse=True)
def no_leaked_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test ends with the threads it began with; those that are ending get ten seconds for it."""
    before = set(threading.enumerate())
    yield
    if request.node.get_closest_marker("leaves_threads"):
        return
    deadline = time.monotonic() + 10
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))
    leaked = [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]
    assert not leaked, f"the test left threads running: {leaked}"


@pytest.fixture(autouse=True)
def no_leaked_tasks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever ends an event loop has ended its tasks.

    `asyncio.run` cancels what is left without a word. What is pending after a few turns of the loop was forgotten.
    """
    leaked: list[Any] = []
    cancel_all = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]

    def report_then_cancel(loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(10):
            if not asyncio.all_tasks(loop):
                break
            loop.run_until_complete(asyncio.sleep(0))
        leaked.extend(map(repr, asyncio.all_tasks(loop)))
        cancel_all(loop)

    monkeypatch.setattr(asyncio.runners, "_cancel_all_tasks", report_then_cancel)
    yield
    if leaked and not request.node.get_closest_marker("leaves_tasks"):
        pytest.fail("an event loop ended with tasks pending:\n" + "\n".join(leaked), pytrace=False)
