"""The process that starts workers and watches them: what it does when one of them ends at a bad moment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from amqpflow.services.process import supervisor
from amqpflow.services.process.supervisor import Supervisor, next_wait
from tests.waiting import until

LEAVES_A_CHILD = """
import os, subprocess, sys, time
pipe = int(os.environ["AMQPFLOW_STATUS_FD"])
os.write(pipe, b'{"ready": true, "started": true, "problems": {}, "totals": {}, "handled": []}\\n')
if os.environ["AMQPFLOW_WORKER"] == "1":
    subprocess.Popen(["sleep", "3"], pass_fds=[pipe])
else:
    time.sleep(60)
"""


def test_a_worker_that_has_just_ended_does_not_keep_the_others_from_being_stopped(tmp_path: Path) -> None:
    """A child of its own holds the pipe open, so the supervisor still listens for its last words."""

    async def scenario() -> None:
        (tmp_path / "worker.py").write_text(LEAVES_A_CHILD)
        both = Supervisor([sys.executable, str(tmp_path / "worker.py")], 2)
        running = asyncio.create_task(both.run())
        first, second = both._workers
        await until(lambda: second.status.ready and first.process and first.process.returncode is not None, every=0.001)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 30)
        assert second.code == -signal.SIGTERM

    asyncio.run(scenario())


STANDS_STILL_AT_FIRST = """
import json, os, pathlib, sys, time
lives = pathlib.Path(sys.argv[0]).with_name("lives")
first = not lives.exists()
lives.touch()
problems = {"orders": "stuck"} if first else {}
status = {"ready": not first, "started": True, "live": not first, "problems": problems, "totals": {}}
pipe = int(os.environ["AMQPFLOW_STATUS_FD"])
while True:
    os.write(pipe, json.dumps(status).encode() + b"\\n")
    time.sleep(0.02)
"""


def test_a_worker_that_stands_still_is_restarted_and_the_reason_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_WAIT", 0.01)

    async def scenario() -> None:
        (tmp_path / "worker.py").write_text(STANDS_STILL_AT_FIRST)
        one = Supervisor([sys.executable, str(tmp_path / "worker.py")], 1)
        running = asyncio.create_task(one.run())
        await until(lambda: one.health().ready)
        assert "restarts: 1" in one.summary
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 30)

    asyncio.run(scenario())
    told = [each.getMessage() for each in caplog.records if "is restarted" in each.getMessage()]
    assert told == ["worker 1 is stuck and is restarted: orders: stuck"], "once"


def test_a_worker_for_which_there_is_no_room_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_WAIT", 0.01)
    start = asyncio.create_subprocess_exec
    failures = 2

    async def scenario() -> None:
        both = Supervisor([sys.executable, "-c", "import time; time.sleep(60)"], 1)
        both._ever_started.set()  # the service has run before

        async def no_room(*command: str, **options: object) -> object:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            return await start(*command, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(asyncio, "create_subprocess_exec", no_room)
        running = asyncio.create_task(both.run())
        await until(lambda: both._workers[0].process)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 30)

    asyncio.run(scenario())


def test_waits_double_while_a_worker_goes_on_dying_unless_it_dies_of_one_message() -> None:
    waits = [0.0]
    for _ in range(8):
        waits.append(next_wait(waits[-1], lived=1))
    assert waits == [0, 0.2, 1, 2, 4, 8, 16, 30, 30]
    assert next_wait(30, lived=100) == 0.2
    assert next_wait(0, lived=1, known=True) == 0.2
    assert [next_wait(wait, lived=1, known=True) for wait in (0.2, 2, 30)] == [0.2, 2, 30]


SAYS_TOO_MUCH = """
import os, time
pipe = int(os.environ["AMQPFLOW_STATUS_FD"])
os.write(pipe, b"x" * 40_000); os.write(pipe, b"x" * 100_000 + b"\\n")
os.write(pipe, b'{"ready": true, "started": true, "problems": {}, "totals": {}, "handled": []}\\n')
time.sleep(60)
"""


def test_a_line_of_any_length_does_not_end_the_listening(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "worker.py").write_text(SAYS_TOO_MUCH)
        one = Supervisor([sys.executable, str(tmp_path / "worker.py")], 1)
        running = asyncio.create_task(one.run())
        await until(lambda: one._workers[0].status.ready)
        assert one.health().live
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 30)

    asyncio.run(scenario())
