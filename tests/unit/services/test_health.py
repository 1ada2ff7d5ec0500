"""What a probe is answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from amqpflow.errors import UsageError
from amqpflow.services.process.health import Health, response, serve_health
from amqpflow.services.process.heartbeat import LONGEST_LINE, WorkerStatus, decode, encode
from amqpflow.services.process.supervisor import Supervisor

READY = Health(ready=True)
PAUSED = Health(ready=False, problems={"orders": "cannot park: \x1b[2J"})
STUCK = Health(ready=True, live=False)


def ask(request: str, health: Health) -> tuple[int, Any]:
    head, _, body = response(f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), health).decode().partition("\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else None


def test_readiness_is_that_every_queue_is_consumed() -> None:
    assert ask("GET /readyz", READY) == (200, {"status": "ready"})
    assert ask("GET /readyz?verbose", PAUSED) == (
        503,
        {"status": "not ready", "problems": {"orders": "cannot park: \x1b[2J"}},
    )
    assert b"\x1b" not in response(b"GET /readyz HTTP/1.1\r\n\r\n", PAUSED)


def test_liveness_does_not_look_at_the_broker() -> None:
    assert ask("GET /livez", PAUSED)[0] == 200
    assert ask("GET /livez", STUCK)[0] == 503
    assert ask("GET /readyz", STUCK)[0] == 503


def test_head_has_no_body_and_other_requests_are_refused() -> None:
    assert ask("HEAD /livez", READY) == (200, None)
    assert ask("POST /livez", READY)[0] == 405
    assert ask("GET /", READY)[0] == 404
    assert ask("", READY)[0] == 405


def test_a_peer_that_says_nothing_or_too_much_holds_nothing_up() -> None:
    async def scenario() -> None:
        async with serve_health(0, "127.0.0.1", lambda: READY) as port:
            _, silent = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /livez HTTP/1.1\r\nX: " + b"x" * 40_000)
            assert await reader.read() == b""
            reader, asking = await asyncio.open_connection("127.0.0.1", port)
            asking.write(b"GET /livez HTTP/1.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
            for each in (silent, writer, asking):
                each.close()

    asyncio.run(scenario())


def test_a_port_that_is_taken_is_one_clear_sentence() -> None:
    async def scenario() -> None:
        async with serve_health(0, "127.0.0.1", lambda: READY) as port:
            with pytest.raises(UsageError, match=f"cannot listen for health probes on port {port}"):
                async with serve_health(port, "127.0.0.1", lambda: READY):
                    raise AssertionError

    asyncio.run(scenario())


def test_a_status_line_survives_the_pipe_and_half_a_line_is_ignored() -> None:
    status = WorkerStatus(ready=True, problems={"orders": "x\ny"}, totals={"acked": 3})
    line = encode(status)
    assert line.count(b"\n") == 1
    assert decode(line) == status
    assert decode(line[:-20]) is None
    assert decode(b"[]") is None


def test_workers_are_ready_when_all_are() -> None:
    async def scenario() -> None:
        health = Supervisor(["true"], 2).health()
        assert (health.ready, health.live) == (False, True)
        assert health.problems == {"worker 1": "it is not running", "worker 2": "it is not running"}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "problems",
    [
        {"orders": "x" * 1_000_000},
        {"orders": "\u20ac" * 100_000},
        {f"queue {number} " + "n" * 230: "the connection was lost" for number in range(500)},
        {"q" * 100_000: "x"},
    ],
    ids=["long", "long and not ASCII", "many", "a long name"],
)
def test_a_worker_s_line_is_as_short_as_a_pipe_takes_at_once(problems: dict[str, str]) -> None:
    line = encode(WorkerStatus(ready=False, started=True, problems=problems, totals={"acked": 3}))
    assert len(line) <= LONGEST_LINE
    said = decode(line)
    assert said is not None
    assert (said.started, said.totals) == (True, {"acked": 3})
    assert said.problems
    if len(problems) > 1:
        assert said.problems["more"] == f"{len(problems) - len(said.problems) + 1} further problems"
